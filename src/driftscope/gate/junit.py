"""The verdicts of a gate as JUnit XML, which CI systems show beside the tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from driftscope.errors import plain
from driftscope.gate.judging import Evidence, Verdict

_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(evidence: Evidence, verdicts: Sequence[Verdict]) -> str:
    """One test case a limit; a number that was not measured is a failure, as in the gate.

    Args:
        evidence: what was judged.
        verdicts: of its limits.
    """
    failed = sum(verdict.outcome != "passed" for verdict in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(failed), "errors": "0"}
    suite = ElementTree.Element("testsuite", {"name": _text(evidence.what), **counts})
    for verdict in verdicts:
        name = f"{verdict.title} {verdict.limit}"
        about = {"classname": "driftscope.gate", "name": _text(name)}
        case = ElementTree.SubElement(suite, "testcase", about)
        if verdict.outcome != "passed":
            told = {"type": verdict.outcome, "message": _text(verdict.sentence)}
            ElementTree.SubElement(case, "failure", told).text = _text(verdict.sentence)
    return _document(suite, counts)


def junit_of_error(report: Path, error: Exception) -> str:
    """One test case that ends in an error: the report cannot be judged at all."""
    counts = {"tests": "1", "failures": "0", "errors": "1"}
    suite = ElementTree.Element("testsuite", {"name": _text(str(report)), **counts})
    about = {"classname": "driftscope.gate", "name": "the report can be read"}
    case = ElementTree.SubElement(suite, "testcase", about)
    told = {"type": type(error).__name__, "message": _text(str(error))}
    ElementTree.SubElement(case, "error", told).text = _text(str(error))
    return _document(suite, counts)


def _document(suite: ElementTree.Element, counts: Mapping[str, str]) -> str:
    root = ElementTree.Element("testsuites", {"name": "driftscope gate", **counts})
    root.append(suite)
    ElementTree.indent(root)
    written = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{written}\n'


def _text(text: str) -> str:
    """Without what XML cannot hold, however it is escaped."""
    return _NOT_IN_XML.sub("\ufffd", plain(text))

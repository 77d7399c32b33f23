"""Zero-shot accuracy of one model on one labeled dataset, with the words it does not know.

    python tools/zero_shot_score.py mini cifar100 [--templates imagenet80] [--images 1000]

Prints the score as JSON; `driftscope compare` gives the same of two models side by side.
"""

from __future__ import annotations

import argparse
import json
import sys

from driftscope.data.prompts import PromptRules
from driftscope.errors import DriftscopeError
from driftscope.sources import load
from driftscope.transfer import transfer_set


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--templates", nargs="+", default=["photo"])
    parser.add_argument("--images", type=int, default=None, help="at most; all by default")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    try:
        model = load(options.model, device=options.device)
        rules = PromptRules(tuple(options.templates))
        benchmark = transfer_set(options.dataset, model, options.images, rules)
        score = benchmark.score(model)
    except DriftscopeError as error:
        print(error, file=sys.stderr)
        return 2
    told = {
        "model": options.model,
        "dataset": options.dataset,
        "num_images": score.num_images,
        "num_classes": len(benchmark.class_names),
        "top1_pct": round(score.accuracy_pct, 2),
        "top1_wilson_pct": [round(score.wilson_low_pct, 2), round(score.wilson_high_pct, 2)],
        "top5_pct": round(score.top5_pct or 0, 2),
        "mean_per_class_pct": round(score.mean_per_class_pct or 0, 2),
        "chance_pct": round(100 / len(benchmark.class_names), 2),
        "num_unknown_words": len(benchmark.unknown_words),
        "unknown_words": benchmark.unknown_words,
        "classes_of_known_words": benchmark.classes_of_known_words,
    }
    print(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A fixed vocabulary of everyday words, against which image embeddings are seen.

Text-space drift needs texts that stay the same from model to model and from study to study, so
that its numbers can be compared. The words are the things and colours that general captions
are full of, and the concepts of the embedded world.
"""

from __future__ import annotations

from driftscope.data.procedural import PROCEDURAL_SETS

GENERAL = "general"
"""The vocabulary's name."""
_EVERYDAY_WORDS = """
    apple baby backpack banana beach bed bee bicycle bird boat book bottle bowl boy bread bridge
    building bus butterfly cake camel camera can car castle cat chair city clock cloud computer
    cow crab crowd cup desert desk dog dolphin door dress duck elephant farm field fire fish
    flower forest fox garden girl glass guitar hammer hand hat horse hospital house kitchen knife
    lake lamp leaf lion lizard machine man map market monkey moon mountain mouse mushroom ocean
    office orange painting park pear phone piano pizza plane plate rabbit rain restaurant river
    road rose school shark sheep ship shirt shoe shop sky snake snow spider squirrel station
    street sun sunset table telephone tiger tower toy tractor train tree truck turtle umbrella
    village wall watch wave whale window wolf woman
"""

GENERAL_VOCABULARY: tuple[str, ...] = (
    *_EVERYDAY_WORDS.split(),
    *PROCEDURAL_SETS["concepts100"].class_names,
)
"""What `driftscope compare` sees embeddings against; words a tokenizer lacks are left out."""

"""Questions about Enginery and their answers: what it is, its commands, its words."""

from random import Random

from demos.chat_training.example import Turn, dress
from demos.chat_training.topics.tables import read_table

FAQ = tuple(read_table("enginery"))


def draw(rng: Random) -> Turn:
    entry = rng.choice(FAQ)
    answer = entry["answer"]
    return Turn(
        "enginery",
        dress(rng, rng.choice(entry["ask"])),
        answer,
        entry["short"],
        reasoning=f"The user asks about Enginery. {answer}",
        expect=(answer,),
    )

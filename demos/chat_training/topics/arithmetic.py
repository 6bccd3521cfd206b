"""Small sums, differences, products, quotients, comparisons and word problems."""

from random import Random

from demos.chat_training.example import Turn, dress
from demos.chat_training.topics.tables import read_table
from demos.chat_training.topics.words import FOODS, NAMES, NUMBER_WORDS, OBJECTS

_TABLES = read_table("arithmetic")
_SIGN_WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
_COUNT = (
    "Count from {0} to {1}.",
    "Please count from {0} to {1}.",
    "Can you count from {0} to {1}?",
    "List the numbers from {0} to {1}.",
)


def _operands(rng: Random, sign: str) -> tuple[int, int, int]:
    """Two numbers and the result, never negative and never a fraction."""
    if sign in "+-":
        top = rng.choice((10, 10, 10, 20, 20, 20))
        left, right = rng.randint(0, top), rng.randint(0, top)
        if sign == "+":
            return left, right, left + right
        left, right = max(left, right), min(left, right)
        return left, right, left - right
    left, right = rng.randint(0, 10), rng.randint(0, 10)
    if sign == "*":
        return left, right, left * right
    right = max(right, 1)
    return left * right, right, left


def calculation(rng: Random) -> Turn:
    """A sum, difference, product or quotient, in signs or in words."""
    sign = rng.choice("++++---**/")
    left, right, result = _operands(rng, sign)
    a, b, said = str(left), str(right), f" {_SIGN_WORDS[sign]} "
    if max(left, right) <= 20 and rng.random() < 0.12:
        a, b = NUMBER_WORDS[left], NUMBER_WORDS[right]
    elif rng.random() < 0.75:
        shown = rng.choice("x*") if sign == "*" else sign
        said = rng.choice((f" {shown} ", f" {shown} ", shown))
    if rng.random() < 0.25:
        prompt = rng.choice(_TABLES["by_name"][sign]).format(a=a, b=b)
    else:
        prompt = rng.choice(_TABLES["ask"]).format(e=a + said + b)
    exercise = f"{left} {sign} {right}"
    return Turn(
        "arithmetic",
        dress(rng, prompt),
        f"{exercise} is {result}.",
        str(result),
        reasoning=f"This is a small calculation. {exercise} = {result}.",
    )


def _comparison(rng: Random) -> tuple[str, str, str]:
    pair = rng.sample(range(51), 2)
    large, small = max(pair), min(pair)
    ask, answer, short = rng.choice(
        (
            ("Which is larger, {0} or {1}?", f"{large} is larger than {small}.", large),
            ("Which number is bigger, {0} or {1}?", f"{large} is larger than {small}.", large),
            ("What is more, {0} or {1}?", f"{large} is larger than {small}.", large),
            ("Which is smaller, {0} or {1}?", f"{small} is smaller than {large}.", small),
            ("What is less, {0} or {1}?", f"{small} is smaller than {large}.", small),
        )
    )
    return ask.format(*pair), answer, str(short)


def _about_one_number(rng: Random) -> tuple[str, str, str]:
    """Neighbours, doubles, halves, odd and even."""
    n, small = rng.randint(0, 50), rng.randint(1, 10)
    parity = "odd" if n % 2 else "even"
    asks, answer, short = rng.choice(
        (
            (
                (f"What number comes after {n}?", f"What comes after {n}?"),
                f"{n + 1} comes after {n}.",
                n + 1,
            ),
            ((f"What number comes before {n + 1}?",), f"{n} comes before {n + 1}.", n),
            (
                (f"What is double {small}?", f"Double {small}.", f"What is twice {small}?"),
                f"Twice {small} is {2 * small}.",
                2 * small,
            ),
            (
                (f"What is half of {2 * small}?", f"Half of {2 * small}?"),
                f"Half of {2 * small} is {small}.",
                small,
            ),
            (
                (f"Is {n} even or odd?", f"Is the number {n} odd or even?"),
                f"{n} is {parity}.",
                parity,
            ),
        )
    )
    return rng.choice(asks), answer, str(short)


def number_question(rng: Random) -> Turn:
    prompt, answer, short = rng.choices((_comparison, _about_one_number), (30, 70))[0](rng)
    reasoning = f"A question about numbers. {answer}"
    return Turn("arithmetic", dress(rng, prompt), answer, short, reasoning)


def counting(rng: Random) -> Turn:
    start = rng.choice((1, 1, rng.randint(0, 12)))
    numbers = [str(n) for n in range(start, start + rng.randint(3, 9))]
    listed = ", ".join(numbers)
    prompt = rng.choice(_COUNT).format(numbers[0], numbers[-1])
    if start == 1 and rng.random() < 0.6:
        last = rng.choice((numbers[-1], NUMBER_WORDS[int(numbers[-1])]))
        prompt = rng.choice(("Count to {0}.", "Can you count to {0}?")).format(last)
    reasoning = f"I start at {numbers[0]} and stop at {numbers[-1]}."
    return Turn("arithmetic", dress(rng, prompt), f"{listed}.", "", reasoning, expect=(listed,))


def word_problem(rng: Random) -> Turn:
    things, name = rng.choice(OBJECTS[:24] + FOODS[:8]) + "s", rng.choice(NAMES)
    left, right = rng.randint(2, 15), rng.randint(1, 10)
    sign = rng.choice("+-")
    if sign == "+":
        result, gains, buys = left + right, f"get {right} more", f"buys {right} more"
    else:
        left, right = max(left, right), min(left, right)
        result, gains, buys = left - right, f"give away {right}", f"loses {right}"
    prompt, who = rng.choice(
        (
            (f"I have {left} {things} and {gains}. How many {things} do I have?", "You have"),
            (
                f"{name} has {left} {things} and {buys}. How many {things} does {name} have?",
                f"{name} has",
            ),
        )
    )
    reasoning = f"{left} {sign} {right} = {result}."
    return Turn("arithmetic", prompt, f"{who} {result} {things}.", str(result), reasoning)


def draw(rng: Random) -> Turn:
    kinds = (calculation, number_question, counting, word_problem)
    return rng.choices(kinds, (70, 14, 4, 12))[0](rng)

"""Define who can act, in which tenses, and which actions fit which things."""

from dataclasses import dataclass, field, replace

from examples.demo_corpus.phrasebook import lexicon as lex
from examples.demo_corpus.phrasebook.clause import CAN, MUST, PAST, SHOULD, WANT, WILL, WOULD_LIKE, Pair, Subject
from examples.demo_corpus.phrasebook.words import Noun, Verb

MY, HIS, HER, OUR, YOUR = (
    Pair(*words.split()) for words in ("my mein", "his sein", "her ihr", "our unser", "your Ihr")
)
I = Subject(Pair("I", "ich"), "ich", MY)  # noqa: E741
WE = Subject(Pair("we", "wir"), "wir", OUR)
YOU = Subject(Pair("you", "Sie"), "wir", YOUR)
HE = Subject(Pair("he", "er"), "er", HIS)
SHE = Subject(Pair("she", "sie"), "er", HER)
THIRD = {"m": HIS, "f": HER}

STATEMENTS = (PAST, PAST, PAST, WILL, CAN, MUST, SHOULD, WANT, WOULD_LIKE)
QUESTIONS = (PAST, PAST, WILL, CAN, SHOULD, WANT, WOULD_LIKE)


@dataclass(frozen=True)
class Action:
    """Verbs with the same type of object: a person (``personal``), a definite or (``open``) any thing."""

    verbs: tuple[Verb, ...]
    nouns: tuple[Noun, ...] = ()
    adjectives: dict[str, str] = field(default_factory=dict)
    open: bool = False
    personal: bool = False


GOODS_ADJECTIVES = {**lex.ADJECTIVES, **lex.COLOURS}
TRADE = Action(lex.TRADE, lex.GOODS, GOODS_ADJECTIVES, open=True)
MISHAP = replace(TRADE, verbs=lex.MISHAPS)
NEED = replace(TRADE, verbs=lex.NEED, adjectives={})
ORDER = Action(lex.ORDER, lex.FOOD, lex.FLAVOURS, open=True)
PAPERWORK = Action(lex.PAPERWORK, lex.PAPERS, lex.STYLES, open=True)
MEETING = Action(lex.MEETING, personal=True)
HOUSEHOLD = (
    Action(lex.REPAIR, lex.MACHINES, lex.COLOURS),
    Action(lex.SWITCH, lex.DEVICES, lex.COLOURS),
    Action(lex.TRY_ON, lex.CLOTHES, lex.COLOURS),
    Action(lex.CLEANING, lex.ROOMS),
    Action(lex.OPENING, lex.OPENINGS + lex.CONTAINERS[:3]),
    Action(lex.VISIT, lex.SIGHTS),
)
KNOWN = (replace(PAPERWORK, open=False), MEETING, MEETING, *HOUSEHOLD)  # with definite things and people only
PLACED = {verb for verb in (*lex.TRADE, *lex.MISHAPS, *lex.ORDER, *lex.MEETING) if verb.en != "bring"}
ACTIONS = (TRADE, TRADE, ORDER, PAPERWORK, MEETING, *KNOWN)

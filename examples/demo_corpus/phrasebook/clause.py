"""Build one clause in English and in German: agreement, case endings and the word orders of both languages.

German is built by its topological fields. A clause has a finite verb, a middle field, and a right bracket with
the separated prefix, the participle or the infinitive. Clause types differ in the position of the finite verb:

    main         Gestern  hat  Anna den Arzt     angerufen          one constituent, finite, middle, bracket
    question              Hat  Anna den Arzt     angerufen          finite, middle, bracket
    subordinate  dass          Anna den Arzt     angerufen hat      middle, bracket, finite

The middle field is ordered: subject, time, dative, definite object, manner, place, indefinite object, and
complements next to the verb (direction, prepositional object, price).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from examples.demo_corpus.phrasebook.words import Noun, Verb

DEFINITE = {
    "nom": {"m": "der", "f": "die", "n": "das"},
    "acc": {"m": "den", "f": "die", "n": "das"},
    "dat": {"m": "dem", "f": "der", "n": "dem"},
}
# The ending of ein, mein, ihr ...
INDEFINITE = {
    "nom": {"m": "", "f": "e", "n": ""},
    "acc": {"m": "en", "f": "e", "n": ""},
    "dat": {"m": "em", "f": "er", "n": "em"},
}
STRONG = {"m": "en", "f": "e", "n": "es"}  # the adjective after an accusative article


class Pair(NamedTuple):
    """The same words in English and in German."""

    en: str
    de: str

    def __bool__(self) -> bool:
        """Tell whether the pair has a word; a tuple of two empty strings would be true."""
        return bool(self.en or self.de)


NOTHING = Pair("", "")


def words(*parts: str) -> str:
    """Join parts by spaces, without the empty ones."""
    return " ".join(part for part in parts if part)


def join(*parts: Pair) -> Pair:
    """Join pairs in the same order in both languages, without the empty ones."""
    return Pair(*(words(*side) for side in zip(*parts, strict=True)))


def with_article(phrase: str) -> str:
    """Put the English a or an before a phrase; the lexicon has no `hour` and no `university`."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def definite(noun: Noun, case: str = "acc", adjective: Pair = NOTHING) -> Pair:
    """Return "the old table: den alten Tisch". Weak adjectives end in -e, or -en (dative, masculine accusative)."""
    ending = "e" if case == "nom" or (case == "acc" and noun.gender != "m") else "en"
    return Pair(
        words("the", adjective.en, noun.en),
        " ".join(
            filter(None, [DEFINITE[case][noun.gender], adjective.de and adjective.de + ending, decline(noun, case)])
        ),
    )


def indefinite(noun: Noun, adjective: Pair = NOTHING) -> Pair:
    """Return "an old table: einen alten Tisch"."""
    article = "ein" + INDEFINITE["acc"][noun.gender]
    german = [article, adjective.de and adjective.de + STRONG[noun.gender], decline(noun, "acc")]
    return Pair(with_article(words(adjective.en, noun.en)), words(*german))


def possessed(noun: Noun, owner: Pair, case: str = "acc") -> Pair:
    """Return "her brother: ihren Bruder"; ``owner`` is the possessive without its ending (her, ihr)."""
    return Pair(f"{owner.en} {noun.en}", f"{owner.de}{INDEFINITE[case][noun.gender]} {decline(noun, case)}")


def counted(number: Pair, noun: Noun, adjective: Pair = NOTHING) -> Pair:
    """Return "six old chairs: sechs alte Stühle" in the nominative or accusative, which are equal."""
    german = words(number.de, adjective.de and adjective.de + "e", noun.de_plural)
    return Pair(words(number.en, adjective.en, noun.en_plural), german)


def decline(noun: Noun, case: str) -> str:
    """Return the singular of a noun in a case."""
    return noun.de if case == "nom" else noun.oblique


@dataclass(frozen=True)
class Subject:
    """The acting person: words in the nominative, agreement and possessive."""

    words: Pair
    person: str  # verb form in both languages: ich, er (third person singular), wir (all plurals and formal Sie)
    owner: Pair = NOTHING


@dataclass(frozen=True)
class Form:
    """A tense or modal: English auxiliary with the words after it, German finite auxiliary (none: the verb itself)."""

    english: str = ""  # none: do, does, did
    rest: str = ""
    german: tuple[str, str, str] | None = None  # with ich, er, wir
    past: bool = False


PERFECT = {"haben": ("habe", "hat", "haben"), "sein": ("bin", "ist", "sind")}
PERSONS = ("ich", "er", "wir")
PRESENT = Form()
PAST = Form(past=True)
WILL = Form("will", german=("werde", "wird", "werden"))
CAN = Form("can", german=("kann", "kann", "können"))
MUST = Form("must", german=("muss", "muss", "müssen"))
SHOULD = Form("should", german=("sollte", "sollte", "sollten"))
WANT = Form(rest="want to", german=("will", "will", "wollen"))
WOULD_LIKE = Form("would", rest="like to", german=("möchte", "möchte", "möchten"))


@dataclass(frozen=True)
class Clause:
    """One subject, one verb and its complements, which may be absent. Words are in their final case."""

    subject: Subject
    verb: Verb
    form: Form
    object: Pair = NOTHING
    definite: bool = True  # of the object: decides whether it is before or after the place
    recipient: Pair = NOTHING  # dative
    goal: Pair = NOTHING  # direction or price: close to the verb
    manner: Pair = NOTHING
    place: Pair = NOTHING
    time: Pair = NOTHING
    negated: bool = False

    def without(self, part: str) -> "Clause":
        """Return the clause without this constituent, which is fronted or the subject of a question."""
        return replace(self, **{part: NOTHING})

    # German ---------------------------------------------------------------------------------------------------------

    def _brackets(self) -> tuple[str, list[str]]:
        """Return the finite verb and the right bracket of a main clause."""
        person = PERSONS.index(self.subject.person)
        if self.form.past:
            return PERFECT[self.verb.aux][person], [self.verb.participle]
        if self.form.german:
            return self.form.german[person], [self.verb.infinitive]
        return self.verb.finite(self.subject.person), [self.verb.prefix]

    def _middle(self) -> list[str]:
        preposition, _, _ = self.verb.governs.rpartition(" ")
        early, late = self.object.de if self.definite and not preposition else "", self.object.de
        late = "" if early else f"{preposition} {late}".strip() if late else ""
        negation = "nicht" if self.negated else ""
        order = [self.time.de, self.recipient.de, early, self.manner.de, self.place.de, negation, late, self.goal.de]
        return [words for words in order if words]

    def german_main(self, front: str = "") -> str:
        """Return the German with the verb second; ``front``, or else the subject, comes first."""
        finite, closing = self._brackets()
        first = [front, finite, self.subject.words.de] if front else [self.subject.words.de, finite]
        return words(*first, *self._middle(), *closing)

    def german_question(self) -> str:
        """Return the German with the verb first."""
        finite, closing = self._brackets()
        return words(finite, self.subject.words.de, *self._middle(), *closing)

    def german_subordinate(self) -> str:
        """Return the German with the verb last, joined with its prefix."""
        finite, closing = self._brackets()
        if closing == [self.verb.prefix]:
            finite, closing = self.verb.prefix + finite, []
        return words(self.subject.words.de, *self._middle(), *closing, finite)

    # English --------------------------------------------------------------------------------------------------------

    def _auxiliary(self) -> tuple[str, str]:
        """Return the auxiliary (do if there is no other) and the words between it and the rest of the clause."""
        do = "did" if self.form.past else "does" if self.subject.person == "er" else "do"
        return self.form.english or do, f"{self.form.rest} {self.verb.en}".strip()

    def _predicate(self) -> str:
        """Return the verb of a statement."""
        auxiliary, rest = self._auxiliary()
        if self.negated:
            return f"{auxiliary} not {rest}"
        if self.form.english:
            return f"{auxiliary} {rest}"
        if self.form.past:
            return self.verb.en_past
        if self.form.rest:
            return rest.replace("want", "wants") if self.subject.person == "er" else rest
        return self.verb.en_3sg if self.subject.person == "er" else self.verb.en

    def _tail(self) -> list[str]:
        parts = [self.recipient, self.object, self.goal, self.manner, self.place, self.time]
        return [self.verb.particle, *(part.en for part in parts)]

    def english_main(self) -> str:
        """Return the English as subject, verb, object, in main and subordinate clauses."""
        return words(self.subject.words.en, self._predicate(), *self._tail())

    def english_question(self) -> str:
        """Return the English as auxiliary, subject, verb."""
        auxiliary, rest = self._auxiliary()
        return words(auxiliary, self.subject.words.en, rest, *self._tail())

    # Both -----------------------------------------------------------------------------------------------------------

    def main(self, front: Pair = NOTHING) -> Pair:
        """Return a statement; with ``front``, it starts with that constituent."""
        return Pair(f"{front.en} {self.english_main()}".strip(), self.german_main(front.de))

    def question(self, front: Pair = NOTHING) -> Pair:
        """Return a question: yes or no, or with a question word in ``front`` (how much, wie viel)."""
        return join(front, Pair(self.english_question(), self.german_question()))

    def subordinate(self, conjunction: Pair) -> Pair:
        """Return a clause after dass or ob."""
        return join(conjunction, Pair(self.english_main(), self.german_subordinate()))

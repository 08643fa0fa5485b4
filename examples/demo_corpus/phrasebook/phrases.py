"""Draw constituents at random (who, what, when, where), and clauses whose constituents fit together."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from examples.demo_corpus.phrasebook import lexicon as lex
from examples.demo_corpus.phrasebook.actions import (
    ACTIONS,
    GOODS_ADJECTIVES,
    HE,
    MISHAP,
    MY,
    OUR,
    PLACED,
    SHE,
    THIRD,
    WE,
    Action,
    I,
)
from examples.demo_corpus.phrasebook.clause import (
    NOTHING,
    PRESENT,
    Clause,
    Form,
    Pair,
    Subject,
    counted,
    definite,
    indefinite,
    join,
    possessed,
)
from examples.demo_corpus.phrasebook.words import Verb


class Draw:
    """Constituents from one random generator."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def one(self, options: Sequence | dict[str, str]):
        """Draw one of a sequence, or a ``Pair`` of a table."""
        if isinstance(options, dict):
            return Pair(*self.random.choice(list(options.items())))
        return self.random.choice(options)

    # Who ------------------------------------------------------------------------------------------------------------

    def name(self, case: str = "nom") -> tuple[Pair, str]:
        """Draw a proper name and its gender."""
        gender = self.one("mf")
        english = self.one(lex.MEN if gender == "m" else lex.WOMEN)
        mister = "Herr" if case == "nom" else "Herrn"
        return Pair(english, english.replace("Mrs", "Frau").replace("Mr", mister)), gender

    def subject(self, other: Subject | None = None) -> Subject:
        """Draw a person other than ``other``: pronoun, name, relative, or a profession such as the teacher."""
        found = self.one((I, WE, HE, SHE)) if self.chance(0.25) else self.third()
        return self.subject(other) if found == other else found

    def third(self, other: Subject | None = None) -> Subject:
        """Draw a person as ``subject`` does, but not a pronoun."""
        choice = self.random.random()
        if choice < 0.6:
            words, gender = self.name()
        else:
            noun = self.one(lex.FAMILY if choice < 0.8 else lex.PEOPLE)
            words = possessed(noun, self.one((MY, OUR)), "nom") if choice < 0.8 else definite(noun, "nom")
            gender = noun.gender
        return self.third(other) if other and words == other.words else Subject(words, "er", THIRD[gender])

    def person(self, case: str, owner: Pair) -> Pair:
        """Draw a person as an object: a name, a relative of the subject, or a profession such as the teacher."""
        choice = self.random.random()
        if choice < 0.35:
            return self.name(case)[0]
        return possessed(self.one(lex.FAMILY), owner, case) if choice < 0.7 else definite(self.one(lex.PEOPLE), case)

    # What -----------------------------------------------------------------------------------------------------------

    def adjective(self, options: dict[str, str]) -> Pair:
        """Draw an adjective, or none."""
        return self.one(options) if options and self.chance(0.4) else NOTHING

    def known(self, action: Action) -> Pair:
        """Draw "the red lamp", in the accusative."""
        return definite(self.one(action.nouns), "acc", self.adjective(action.adjectives))

    def some(self, action: Action) -> Pair:
        """Draw "a red lamp" or "six red lamps"."""
        noun, adjective = self.one(action.nouns), self.adjective(action.adjectives)
        return indefinite(noun, adjective) if self.chance(0.6) else counted(self.few(), noun, adjective)

    def object(self, action: Action, verb: Verb, owner: Pair) -> tuple[Pair, bool]:
        """Draw the object of an action, in the case that the verb governs, and whether it is definite."""
        if action.personal:
            return self.person(verb.governs.split()[-1], owner), True
        return (self.some(action), False) if action.open and self.chance(0.5) else (self.known(action), True)

    def few(self) -> Pair:
        """Draw a number from two to twelve."""
        return Pair(*self.random.choice(list(lex.DIGITS.items())[1:]))

    def price(self) -> Pair:
        """Draw a price, such as "twenty-five euros: fünfundzwanzig Euro"; English names tens first, German units."""
        tens = self.one(lex.TENS)
        digit = Pair(*self.random.choice(list(lex.DIGITS.items())[1:9]))
        number = Pair(f"{tens.en}-{digit.en}", f"{digit.de}und{tens.de}") if self.chance(0.5) else tens
        return join(number, Pair("euros", "Euro"))

    # When and where -------------------------------------------------------------------------------------------------

    def weekday(self) -> Pair:
        """Draw "on Monday" or "on Monday morning", which is one word in German."""
        day = self.one(lex.DAYS)
        if self.chance(0.6):
            return Pair(f"on {day.en}", f"am {day.de}")
        english, german = self.one({"morning": "morgen", "afternoon": "nachmittag", "evening": "abend"})
        return Pair(f"on {day.en} {english}", f"am {day.de}{german}")

    def time(self, form: Form) -> Pair:
        """Draw a time that fits the tense: past or future."""
        choice = self.random.random()
        if choice < 0.45:
            return self.weekday()
        if choice < 0.6:
            return join(Pair("in", "im"), self.one(lex.MONTHS))
        if choice < 0.75:
            span = join(self.few(), self.one(lex.UNITS))
            return Pair(f"{span.en} ago", f"vor {span.de}") if form.past else join(Pair("in", "in"), span)
        return self.one(lex.PAST_TIMES if form.past else lex.COMING_TIMES)

    def clock(self) -> Pair:
        """Draw "at half past eight: um halb neun" (German counts towards the next hour)."""
        hours = list(lex.DIGITS.items())
        number = self.random.randrange(12)
        hour, coming = Pair(*hours[number]), Pair(*hours[(number + 1) % 12])
        return self.one(
            (
                Pair(f"at {hour.en} o'clock", f"um {hour.de.replace('eins', 'ein')} Uhr"),
                Pair(f"at half past {hour.en}", f"um halb {coming.de}"),
                Pair(f"at quarter past {hour.en}", f"um Viertel nach {hour.de}"),
                Pair(f"at ten to {coming.en}", f"um zehn vor {coming.de}"),
            )
        )

    # Clauses --------------------------------------------------------------------------------------------------------

    def action(self, subject: Subject, form: Form, actions: Sequence[Action] = ACTIONS) -> Clause:
        """Draw an action with its object, without time and place. Subject and object are different persons."""
        action = self.one(actions)
        verb = self.one(action.verbs)
        words, known = self.object(action, verb, subject.owner)
        if words.en == subject.words.en:
            return self.action(subject, form, actions)
        return Clause(subject, verb, form, words, known)

    def setting(self, clause: Clause) -> Clause:
        """Add a time, a place, or both."""
        placed = clause.verb in PLACED and self.chance(0.4)
        timed = not placed or self.chance(0.4)
        time = self.time(clause.form) if timed else NOTHING
        return replace(clause, place=self.one(lex.PLACES) if placed else NOTHING, time=time)

    def journey(self, subject: Subject, form: Form) -> Clause:
        """Draw a person who goes somewhere; the German order is time, manner, goal."""
        verb = self.one((*lex.TRAVEL * 2, *lex.MOTION, *lex.GO, *lex.RETURN))
        city = self.one(lex.CITIES)
        to, place = Pair(f"to {city.en}", f"nach {city.de}"), self.one(lex.GOALS)
        goal = {"travel": to, "fly": to, "come": Pair(f"from {city.en}", f"aus {city.de}")}.get(verb.en, place)
        manner = self.one(lex.MEANS) if verb.en == "travel" else NOTHING
        return Clause(subject, verb, form, goal=goal, manner=manner, time=self.time(form))

    def stay(self, subject: Subject, form: Form) -> Clause:
        """Draw a person who works, stays or sleeps somewhere."""
        city = self.one(lex.CITIES)
        place = self.one((self.one(lex.PLACES), Pair(f"in {city.en}", f"in {city.de}")))
        return Clause(subject, self.one(lex.DWELLING), form, place=place, time=self.time(form))

    def deed(self, forms: Sequence[Form], subject: Subject | None = None) -> Clause:
        """Draw any action of a person, with time or place."""
        subject, form, choice = subject or self.subject(), self.one(forms), self.random.random()
        if choice < 0.12:
            return self.journey(subject, form)
        if choice < 0.2:
            return self.stay(subject, form)
        mishap = form.past and choice < 0.4
        return self.setting(self.action(subject, form, (MISHAP,) if mishap else ACTIONS))

    def schedule(self) -> Clause:
        """Draw an event: trains leave and arrive, concerts start, shops close."""
        choice, city = self.one(("leave", "arrive", "event", "shop")), self.one(lex.CITIES)
        if choice == "leave":
            nouns, verbs, way = lex.VEHICLES, lex.LEAVE, Pair(f"to {city.en}", f"nach {city.de}")
        elif choice == "arrive":
            nouns, verbs, way = lex.VEHICLES, lex.ARRIVE, Pair(f"from {city.en}", f"aus {city.de}")
        else:
            nouns, verbs = (lex.EVENTS, lex.STARTING) if choice == "event" else (lex.SHOPS, lex.OPENING)
            way = NOTHING
        subject = Subject(join(definite(self.one(nouns), "nom"), way), "er")
        return Clause(subject, self.one(verbs), PRESENT, time=self.appointment())

    def appointment(self) -> Pair:
        """Draw "at nine o'clock on Monday: am Montag um neun Uhr", or without the day."""
        clock, day = self.clock(), self.weekday() if self.chance(0.3) else NOTHING
        return Pair(f"{clock.en} {day.en}".strip(), f"{day.de} {clock.de}".strip())

    def goods(self) -> Subject:
        """Draw "the red lamp" as the subject of a clause."""
        return Subject(definite(self.one(lex.GOODS), "nom", self.adjective(GOODS_ADJECTIVES)), "er")

    def priced(self, subject: Subject) -> Clause:
        """Draw "The lamp costs twenty euros"."""
        return Clause(subject, lex.COST[0], PRESENT, goal=self.price())

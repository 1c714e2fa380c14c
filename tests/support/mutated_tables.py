"""Tables as editors, exports, downloads and disks leave them."""

import gzip
import json
import random
from collections.abc import Callable

import pandas as pd

ROWS = [(f"it was {word}, really {n}", ("no", "yes")[n % 2]) for n, word in enumerate(["good", "bad", "schön"] * 5)]
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
JSON = FRAME.to_dict("records")
FILES: dict[str, Callable[[], bytes]] = {
    "t.csv": lambda: FRAME.to_csv(index=False).encode(),
    "t.tsv": lambda: FRAME.to_csv(index=False, sep="\t").encode(),
    "s.csv": lambda: FRAME.to_csv(index=False, sep=";").encode(),
    "t.jsonl": lambda: FRAME.to_json(orient="records", lines=True, force_ascii=False).encode(),
    "t.json": lambda: json.dumps(JSON, ensure_ascii=False).encode(),
    "t.csv.gz": lambda: gzip.compress(FRAME.to_csv(index=False).encode(), mtime=0),
    "t.parquet": lambda: FRAME.to_parquet(),
}
PIECES = [
    b'"',
    b",",
    b";",
    b"\n",
    b"\r\n",
    b"\0",
    b"\t",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"1.0",
    b"\xff",
    b"\xef\xbb\xbf",
]
PIECES += [
    b"1e999",
    b"9" * 5000,
    b"[" * 3000,
    b'{"a": {}}',
    b"\\ud800",
    b"=1+1",
    b"true",
    "é".encode("latin-1"),
    b"PK\x03\x04",
]
ENCODINGS = ["utf-16", "utf-16-le", "latin-1", "utf-8-sig", "utf-32"]


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Change a file as editors, exports, downloads and disks do."""
    for _ in range(dice.randint(1, 3)):
        start, end = sorted(dice.randrange(len(content) + 1) for _ in range(2))
        match dice.randrange(7):
            case 0:
                content = content[:start] + dice.choice(PIECES) + content[start:]
            case 1:
                content = content[:start] + content[min(end, start + 20) :]
            case 2:
                content = content[:start]
            case 3:
                content = content[:start] + bytes([dice.randrange(256)]) + content[start + 1 :]
            case 4:
                content = content.decode("utf-8", "replace").encode(dice.choice(ENCODINGS), "replace")
            case 5:
                content = content[:end] + content[start:]
            case _:
                content = content.replace(
                    *dice.choice([(b",", b";"), (b'"', b"'"), (b"\n", b"\r\n"), (b"text", b"Text")])
                )
    return content

"""Reading of tests/vectors."""

from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "vectors"


def body(name: str) -> bytes:
    """The base64 text of a vector, as it went over the wire."""
    lines = (_FOLDER / f"{name}.b64").read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"#"))


def names() -> list[str]:
    return sorted(path.stem for path in _FOLDER.glob("*.b64"))

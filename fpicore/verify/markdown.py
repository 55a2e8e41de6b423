"""The matrix as Markdown, kept up to date between two markers of a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from .._errors import InputError
from .matrix import Finding, by_cell, word

BEGIN = "<!-- The matrix, written by `make matrix`: do not edit. -->"
END = "<!-- End of the matrix. -->"


def matrix_markdown(findings: Sequence[Finding], frameworks: Sequence[str]) -> str:
    """The matrix as a table: in each cell its status, and what the framework calls the derivative.

    It holds no error figure, so that it changes only when a status does.
    """
    return "\n".join(_lines(findings, frameworks)) + "\n"


def check_markers(path: Path) -> None:
    """Find out before the work whether a file can take the matrix.

    Raises:
        InputError: it does not exist, or has not each marker once and in order.
    """
    _split(path)


def write_between(path: Path, text: str) -> None:
    """Replace what stands between the markers of a file.

    Raises:
        InputError: as in `check_markers`.
    """
    before, _, after = _split(path)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def between(path: Path) -> str:
    """What stands between the markers of a file.

    Raises:
        InputError: as in `check_markers`.
    """
    return _split(path)[1].strip() + "\n"


def _lines(findings: Sequence[Finding], frameworks: Sequence[str]) -> Iterator[str]:
    yield _line(["order", "mode", "transform", *frameworks])
    yield _line(["---"] * (3 + len(frameworks)))
    for (order, mode, transform), cells in by_cell(findings).items():
        shown = [_cell(cells.get(name, [])) for name in frameworks]
        yield _line([str(order), mode, transform, *shown])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(found: Sequence[Finding]) -> str:
    spelling = found[0].spelling if found else ""
    return f"{word(found)} `{spelling}`" if spelling else word(found)


def _split(path: Path) -> tuple[str, str, str]:
    """What stands before the first marker, between the two and behind the second."""
    if not path.is_file():
        raise InputError(f"expected --markdown to name an existing file, received {path}")
    text = path.read_text(encoding="utf-8")
    before, first, rest = text.partition(BEGIN)
    inside, second, after = rest.partition(END)
    if not first or not second or BEGIN in rest or END in after:
        raise InputError(
            f"expected {path} to hold the lines {BEGIN!r} and {END!r}, each once and in this "
            "order; put them where the matrix belongs"
        )
    return before, inside, after

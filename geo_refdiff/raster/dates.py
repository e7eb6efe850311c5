"""Dates of inputs: from metadata, an index or a file's name, as exact as the source states them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from geo_refdiff.errors import OptionError

_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?:(?!\d)|(?=\d{4,6}(?!\d)))")
_PLACE = re.compile(
    r"(?<![a-z])(?:row|col)[_-]?\d+|(?<![a-z])[rcxyij][_-]?\d+[_-]?[rcxyij][_-]?\d+|(?<!\d)\d+x\d+", re.IGNORECASE
)
"""A number by the words row or column, two by such letters, or a width and a height."""

_PAIR = re.compile(r"(?<![A-Za-z0-9])(?<!\d[_-])(\d{4,5})[_-](\d{4,5})(?![A-Za-z0-9]|[_-]\d)")
"""Two numbers side by side and no third one."""

_YEAR = re.compile(r"(?<!\d)((?:19|20)\d\d)(?!\d)")


@dataclass(frozen=True, slots=True)
class Span:
    """Days from `first` to `last`, both included; a date of one day has both the same.

    Attributes:
        first, last: in UTC.
        times: begin and end to the second, in UTC, where they are given; they take no part in comparisons.
    """

    first: date
    last: date
    times: tuple[datetime, datetime] | None = field(default=None, compare=False)

    @property
    def begin(self) -> datetime:
        """As exact as it was given, in UTC."""
        return self.times[0] if self.times else datetime.combine(self.first, time(), UTC)

    @property
    def end(self) -> datetime:
        """As exact as it was given, in UTC; the last second of a day."""
        return self.times[1] if self.times else datetime.combine(self.last, time(23, 59, 59), UTC)

    @property
    def exact(self) -> str:
        """As `span_of` reads it, with times where they are given."""
        if self.times is None:
            return str(self)
        begin, end = (t.isoformat().replace("+00:00", "Z") for t in self.times)
        return begin if begin == end else f"{begin}/{end}"

    def days_from(self, other: Span) -> int:
        """Days between two spans, 0 where they overlap."""
        return max(0, (self.first - other.last).days, (other.first - self.last).days)

    def __str__(self) -> str:
        if self.first == self.last:
            return self.first.isoformat()
        whole = (self.first.month, self.first.day, self.last.month, self.last.day) == (1, 1, 12, 31)
        if whole and self.first.year == self.last.year:
            return str(self.first.year)
        return f"{self.first.isoformat()}/{self.last.isoformat()}"


def span_of(value: object) -> Span | None:
    """A date, a datetime, or text: "2021-05-03", "20210503", "2021-05", "2021", "2021-05-03/2021-06-30", ISO times.

    Times without a zone are UTC; midnight stands for the day, as tables write one.

    Returns:
        None where the value is empty or no date.
    """
    if isinstance(value, datetime):
        return _moment(value) if value == value else None  # NaT is not equal to itself
    if isinstance(value, date):
        return Span(value, value)
    text = "" if value is None else str(value).strip()
    first, slash, last = text.partition("/")
    if slash:
        one, two = span_of(first), span_of(last)
        if one is None or two is None or one.begin > two.end:
            return None
        return Span(one.first, two.last, (one.begin, two.end) if one.times or two.times else None)
    if re.fullmatch(r"(19|20)\d\d", text):
        return Span(date(int(text), 1, 1), date(int(text), 12, 31))
    month = re.fullmatch(r"((?:19|20)\d\d)-(0[1-9]|1[0-2])", text)
    if month:
        start = date(int(month[1]), int(month[2]), 1)
        return Span(start, (start + timedelta(days=32)).replace(day=1) - timedelta(days=1))
    try:
        return _moment(datetime.fromisoformat(text))
    except ValueError:
        return None


def _moment(value: datetime) -> Span:
    moment = datetime(*value.timetuple()[:6], value.microsecond, value.tzinfo or UTC).astimezone(UTC)
    midnight = moment.time() == time()
    return Span(moment.date(), moment.date(), None if midnight else (moment, moment))


def span_in_name(name: str, latest: date | None = None) -> Span | None:
    """The first day that stands in a file's name, else the first year.

    Args:
        name: of a file. A number in it that is the position of a tile (tile_2048_4096, r1920_c2048) is no year.
        latest: what begins later is no date but a number, too; default today.
    """
    latest = datetime.now(UTC).date() if latest is None else latest
    for match in _DAY.finditer(name):
        try:
            day = date(int(match[1]), int(match[2]), int(match[3]))
        except ValueError:
            continue
        if day <= latest:
            return Span(day, day)
    places = [match.span() for match in _PLACE.finditer(name)]
    places += [match.span() for match in _PAIR.finditer(name) if not all(_is_year(n, latest) for n in match.groups())]
    for match in _YEAR.finditer(name):
        if _is_year(match[1], latest) and not any(begin <= match.start() < end for begin, end in places):
            return span_of(match[1])
    return None


def _is_year(text: str, latest: date) -> bool:
    return 1900 <= int(text) <= latest.year


def asked_span(option: str, text: str) -> Span:
    """A date that the user gave.

    Raises:
        OptionError: it is none.
    """
    span = span_of(text)
    if span is None:
        raise OptionError(f"{option} '{text}': give a date as 2021-05-03, 2021-05 or 2021, or two as FIRST/LAST")
    return span

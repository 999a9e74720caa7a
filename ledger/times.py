"""Time as the ledger stores it: whole microseconds since the Unix epoch, UTC, in integer arithmetic throughout."""

from datetime import UTC, date, datetime, timedelta

MICROSECONDS_PER_SECOND = 1_000_000
MICROSECONDS_PER_DAY = 86_400 * MICROSECONDS_PER_SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()
_LAST = datetime.max.replace(tzinfo=UTC)
_LAST_DAY = date.max.toordinal() - _EPOCH_ORDINAL


def utc_now() -> datetime:
    return datetime.now(UTC)


def microseconds_of(moment: datetime) -> int:
    """Microseconds since the epoch. ValueError for a naive datetime, or one whose UTC day has no date."""
    if moment.utcoffset() is None:
        raise ValueError(f"naive datetime {moment.isoformat()}: give it a time zone")
    since = moment - _EPOCH
    if not -_EPOCH_ORDINAL < since.days <= _LAST_DAY:
        raise ValueError(f"{moment.isoformat()} is outside the years 1 to 9999 in UTC")
    return (since.days * 86_400 + since.seconds) * MICROSECONDS_PER_SECOND + since.microseconds


def moment_of(microseconds: int) -> datetime:
    """The moment of so many microseconds since the epoch, in UTC. OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=microseconds)


def bounded_moment_of(microseconds: int) -> datetime:
    """The moment of so many microseconds since the epoch, or the last one that has a date."""
    return _LAST if microseconds >= microseconds_of(_LAST) else moment_of(microseconds)


def day_of(microseconds: int) -> int:
    """The UTC day, counted from 1970-01-01."""
    return microseconds // MICROSECONDS_PER_DAY


def date_text(day: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + day).isoformat()


def day_of_date(text: str) -> int:
    """The UTC day of a date such as "2026-01-29", counted from 1970-01-01."""
    return date.fromisoformat(text).toordinal() - _EPOCH_ORDINAL

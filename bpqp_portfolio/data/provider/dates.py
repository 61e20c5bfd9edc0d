"""Days of daily bars as files write them: dates, stamps with a time, stamps in UTC."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from ...errors import ConfigError, DataError
from .places import Place

_ISO = r"^(\d{4})[-/]?(\d{2})[-/]?(\d{2})(?:[Tt ]\s*(.*))?$"
_OFFSET = r"([Zz]|(?i:UTC|GMT)|[-+](?:0\d|1[0-4])(?::?[0-5]\d)?)$"
_CLOCK = r"(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d*)?)?|(?:[01]\d|2[0-3])(?:[0-5]\d){0,2}"
_MIDNIGHT = r"0?0:00(?::00(?:[.,]0*)?)?|00(?:00){0,2}"
_UTC = ("Z", "UTC", "GMT", "Etc/UTC")


def check_zone(zone: str | None) -> None:
    """Raise :class:`ConfigError` unless ``zone`` is a time zone of the IANA database, or None."""
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"timezone: no time zone {zone!r}; name the exchange's, such as Asia/Shanghai or "
                "America/New_York."
            ) from error


def read_days(
    column: pd.Series, place: Place, *, zone: str | None = None, date_format: str | None = None
) -> pd.Series:
    """Days at midnight, (rows,) datetime64, of dates and stamps; a time of day is cut off.

    A stamp with an offset, or in a time zone of its own, keeps the day that it writes. Stamps in
    UTC are moments, and the exchange's day is another one on half of the globe: they are shifted
    to ``zone``, and refused without it, unless all are midnight, which is how dates are written.

    Raises
    ------
    DataError
        A cell is no date, or the stamps are in UTC and ``zone`` is not said, or only some can be
        shifted to it; file, line and value.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return _of_moments(column, place, zone)
    if pd.api.types.is_datetime64_any_dtype(column):
        days = column.dt.normalize()
        _refuse_missing(days, column, place, date_format)
        return days
    if date_format is None:
        days = pd.to_datetime(column, format="%Y-%m-%d", errors="coerce")
        if not days.isna().any() and days.dt.tz is None:
            return days
    text = column.astype("string").fillna("").str.strip()
    if date_format is not None:
        return _stated(text, column, place, zone, date_format)
    parts = text.str.extract(_ISO)
    days = pd.to_datetime(parts[0] + parts[1] + parts[2], format="%Y%m%d", errors="coerce")
    clock = parts[3].fillna("")
    offset = clock.str.extract(_OFFSET)[0]
    clock = clock.str.replace(_OFFSET, "", regex=True).str.strip()
    clock = clock.where(clock != "", "00:00")
    days = days.where(clock.str.fullmatch(_CLOCK))
    _refuse_missing(days, column, place, date_format)
    if not offset.notna().any():
        return days
    offset = _signed(offset)
    if zone is None:
        in_utc = (offset == "+00:00") & ~clock.str.fullmatch(_MIDNIGHT)
        _refuse_moments(in_utc.fillna(False).to_numpy(dtype=bool), column, place)
        return days  # the local day, as written
    _refuse_mixture(offset.isna().to_numpy(dtype=bool), column, place)
    stamps = days.dt.strftime("%Y-%m-%d ") + clock.str.replace(",", ".") + offset
    moments = pd.to_datetime(stamps, format="ISO8601", utc=True, errors="coerce")
    _refuse_missing(moments, column, place, date_format)
    return _days_in(moments, zone)


def has_offsets(column: pd.Series, date_format: str | None = None) -> bool:
    """Does a stamp of ``column`` say its offset from UTC, so that it can be shifted?"""
    if pd.api.types.is_datetime64_any_dtype(column):
        return isinstance(column.dtype, pd.DatetimeTZDtype)
    if date_format is not None:
        return _is_of_moments(date_format)
    clock = column.astype("string").fillna("").str.strip().str.extract(_ISO)[3].fillna("")
    return bool(clock.str.extract(_OFFSET)[0].notna().any())


def _is_of_moments(date_format: str) -> bool:
    """Has a format an offset from UTC, as ``%z`` or spelled out (``…T%H:%M:%SZ``)?"""
    stated = re.search(r"%z", date_format, re.IGNORECASE)
    return bool(stated or re.search(_OFFSET, re.sub(r"%.", "%", date_format)))


def _stated(
    text: pd.Series, cells: pd.Series, place: Place, zone: str | None, date_format: str
) -> pd.Series:
    """Days of cells that follow ``date_format``, and do so to their end."""
    moments = pd.to_datetime(text, format=date_format, errors="coerce", utc=True)
    _refuse_missing(moments, cells, place, date_format)
    if not _is_of_moments(date_format):
        return moments.dt.tz_localize(None).dt.normalize()
    if zone is None:
        _refuse_moments((moments != moments.dt.normalize()).to_numpy(dtype=bool), cells, place)
        return moments.dt.tz_localize(None)
    return _days_in(moments, zone)


def _signed(offset: pd.Series) -> pd.Series:
    """Offsets from UTC as ``+HH:MM``, of ``Z``, ``utc``, ``+00``, ``-0500`` and the like."""
    out = offset.str.upper().replace(list(_UTC), "+00:00")
    out = out.str.replace(r"^([-+]\d\d):?(\d\d)?$", lambda m: f"{m[1]}:{m[2] or '00'}", regex=True)
    return out.replace("-00:00", "+00:00")


def _of_moments(moments: pd.Series, place: Place, zone: str | None) -> pd.Series:
    """Days of ``moments`` in ``zone``, or else in their own time zone."""
    _refuse_missing(moments, moments, place, None)
    if zone is not None:
        return _days_in(moments.dt.tz_convert("UTC"), zone)
    if str(moments.dt.tz) in (*_UTC, "UTC+00:00"):
        _refuse_moments((moments != moments.dt.normalize()).to_numpy(dtype=bool), moments, place)
    return moments.dt.tz_localize(None).dt.normalize()


def _days_in(moments: pd.Series, zone: str) -> pd.Series:
    """Days of ``moments``, which are in UTC, in ``zone``; where all are midnight they are dates."""
    if (moments == moments.dt.normalize()).all():
        return moments.dt.tz_localize(None)
    return moments.dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()


def _refuse_mixture(without: np.ndarray, cells: pd.Series, place: Place) -> None:
    if without.any():
        i = int(without.argmax())
        raise DataError(
            f"{place.at(i)}: {str(cells.iloc[i])!r} has no offset from UTC and other stamps have "
            "one, so that days would be shifted in part; write all of them in one way."
        )


def _refuse_moments(in_utc: np.ndarray, cells: pd.Series, place: Place) -> None:
    if in_utc.any():
        i = int(in_utc.argmax())
        raise DataError(
            f"{place.at(i)}: {str(cells.iloc[i])!r} is a moment in UTC, and the exchange's day may "
            "be another one; name its time zone with --timezone, such as Asia/Shanghai."
        )


def _refuse_missing(days: pd.Series, cells: pd.Series, place: Place, wanted: str | None) -> None:
    bad = days.isna().to_numpy(dtype=bool)
    if bad.any():
        i = int(np.argmax(bad))
        remedy = (
            f"it does not follow --date-format {wanted}" if wanted else
            "write YYYY-MM-DD, or say how days are written, such as --date-format %m/%d/%Y"
        )  # fmt: skip
        raise DataError(f"{place.at(i)}: {str(cells.iloc[i])!r} is no date; {remedy}.")

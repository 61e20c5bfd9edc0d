"""Days of daily bars as files write them: dates, stamps with a time, stamps in UTC."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from ...errors import ConfigError, DataError
from .places import Place

_ISO = r"^(\d{4})[-/]?(\d{2})[-/]?(\d{2})(?:[T ]\s*(.*))?$"
_OFFSET = r"(Z|UTC|GMT|[-+]\d{2}:?\d{2})$"
_UTC = ("Z", "UTC", "GMT", "Etc/UTC", "+0000", "-00:00", "-0000")


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
        A cell is no date, or the stamps are in UTC and ``zone`` is not said; file, line and value.
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
        days = pd.to_datetime(text, format=date_format, errors="coerce", exact=False)
        days = days.dt.tz_localize(None).dt.normalize()
        _refuse_missing(days, column, place, date_format)
        return days
    parts = text.str.extract(_ISO)
    days = pd.to_datetime(parts[0] + parts[1] + parts[2], format="%Y%m%d", errors="coerce")
    _refuse_missing(days, column, place, date_format)
    clock = parts[3].fillna("")
    offset = clock.str.extract(_OFFSET)[0]
    if not offset.notna().any():
        return days
    offset = offset.replace(list(_UTC), "+00:00")
    clock = clock.str.replace(_OFFSET, "", regex=True).str.strip().replace("", "00:00")
    if zone is None:
        in_utc = (offset == "+00:00") & ~clock.str.fullmatch(r"00:00(:00(\.0*)?)?")
        _refuse_moments(in_utc.to_numpy(dtype=bool), column, place)
        return days  # the local day, as written
    stamps = days.dt.strftime("%Y-%m-%d ") + clock + offset.fillna("+00:00")
    moments = pd.to_datetime(stamps, format="ISO8601", utc=True, errors="coerce")
    _refuse_missing(moments, column, place, date_format)
    return _days_in(moments, zone).where(offset.notna(), days)


def has_offsets(column: pd.Series) -> bool:
    """Does a stamp of ``column`` say its offset from UTC, so that it can be shifted?"""
    if pd.api.types.is_datetime64_any_dtype(column):
        return isinstance(column.dtype, pd.DatetimeTZDtype)
    clock = column.astype("string").fillna("").str.strip().str.extract(_ISO)[3].fillna("")
    return bool(clock.str.extract(_OFFSET)[0].notna().any())


def _of_moments(moments: pd.Series, place: Place, zone: str | None) -> pd.Series:
    """Days of ``moments`` in ``zone``, or else in their own time zone."""
    _refuse_missing(moments, moments, place, None)
    if zone is not None:
        return _days_in(moments.dt.tz_convert("UTC"), zone)
    if str(moments.dt.tz) in _UTC:
        _refuse_moments((moments != moments.dt.normalize()).to_numpy(dtype=bool), moments, place)
    return moments.dt.tz_localize(None).dt.normalize()


def _days_in(moments: pd.Series, zone: str) -> pd.Series:
    """Days of ``moments``, which are in UTC, in ``zone``; where all are midnight they are dates."""
    if (moments == moments.dt.normalize()).all():
        return moments.dt.tz_localize(None)
    return moments.dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()


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

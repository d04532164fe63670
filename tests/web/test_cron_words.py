"""Cron expressions as sentences, in both languages."""

from __future__ import annotations

from itertools import product

import pytest

from headrace.core.cron import check_cron
from headrace.web.cron_words import in_words
from headrace.web.words import Words

SAID = [
    ("* * * * *", "every minute", "mỗi phút"),
    ("*/5 * * * *", "every 5 minutes", "mỗi 5 phút"),
    ("0 * * * *", "every hour", "mỗi giờ"),
    ("0 */6 * * *", "every 6 hours", "mỗi 6 giờ"),
    ("30 * * * *", "at minute 30", "vào phút 30"),
    ("0 2 * * MON", "at 02:00, on Monday", "lúc 02:00, thứ Hai"),
    ("30 8,17 * * 1-5", "at 08:30, 17:30, on Monday to Friday", "lúc 08:30, 17:30, từ thứ Hai đến thứ Sáu"),
    ("0 4-6 * * *", "every hour, in the hours 4 to 6", "mỗi giờ, trong các giờ từ 4 đến 6"),
    ("*/10 8-18 * * 0", "every 10 minutes, in the hours 8 to 18, on Sunday", "mỗi 10 phút, trong các giờ từ 8 đến 18, Chủ nhật"),
    ("0 0 L * *", "at 00:00, on the last day of the month", "lúc 00:00, vào ngày cuối cùng của tháng"),
    ("0 0 LW * *", "at 00:00, on the last weekday of the month", "lúc 00:00, vào ngày làm việc cuối cùng của tháng"),
    ("0 9 * * MON#2", "at 09:00, on the second Monday of the month", "lúc 09:00, thứ Hai lần thứ hai của tháng"),
    ("0 12 * * 5L", "at 12:00, on the last Friday of the month", "lúc 12:00, thứ Sáu cuối cùng của tháng"),
    ("0 0 1 JAN-MAR *", "at 00:00, on day 1 of the month, in January to March", "lúc 00:00, vào ngày 1 trong tháng, từ tháng 1 đến tháng 3"),
    ("15 3 1 */2 *", "at 03:15, on day 1 of the month, every 2 months from January", "lúc 03:15, vào ngày 1 trong tháng, cứ 2 tháng kể từ tháng 1"),
    ("5 4 1,15 * SUN", "at 04:05, on day 1, 15 of the month, or on Sunday", "lúc 04:05, vào ngày 1, 15 trong tháng, hoặc Chủ nhật"),
    ("1-30/5 0-23/2 * * *", "at minute 1 to 30 in steps of 5, in the hours 0 to 23 in steps of 2", "vào phút từ 1 đến 30, cách 5, trong các giờ từ 0 đến 23, cách 2"),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "english", "vietnamese"), SAID)
def test_an_expression_is_told_in_words(expression: str, english: str, vietnamese: str) -> None:
    """As a person would say it."""
    checked = check_cron(expression)
    assert (english, vietnamese) == (in_words(checked, Words("en")), in_words(checked, Words("vi")))


def test_whatever_may_be_scheduled_has_words() -> None:
    """No expression that is accepted breaks a page."""
    days, months = ("*/3", "1,L", "LW", "2-9/2", "7"), ("*", "1-6/2", "DEC", "*/5")
    weekdays = ("*", "*/2", "MON#5", "1L,3", "FRI-SAT")
    for day, month, weekday, language in product(days, months, weekdays, ("en", "vi")):
        assert in_words(check_cron(f"3-9/2,40 */5 {day} {month} {weekday}"), Words(language))

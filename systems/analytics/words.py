"""What the pages and reports say, in English and Vietnamese."""

from __future__ import annotations

LANGUAGES = ("en", "vi")

_WORDS = {
    "title": ("Reports on page views", "Báo cáo lượt xem trang"),
    "other": ("Tiếng Việt", "English"),
    "ask": ("Ask for a report", "Lập báo cáo"),
    "first": ("From", "Từ ngày"),
    "last": ("To", "Đến ngày"),
    "pages": ("Pages that begin with", "Trang bắt đầu bằng"),
    "go": ("Build it", "Lập"),
    "tell": ("Tell (a user)", "Báo cho (người dùng)"),
    "ready": ("Reports that are ready", "Báo cáo đã xong"),
    "none": ("None yet.", "Chưa có."),
    "away": ("The database is away: what is ready cannot be listed.", "Cơ sở dữ liệu đang ngừng: chưa liệt kê được báo cáo."),
    "report": ("Report", "Báo cáo"),
    "to": ("to", "đến"),
    "cancel": ("Cancel", "Hủy"),
    "back": ("All reports", "Mọi báo cáo"),
    "counting": ("Counting", "Đang đếm"),
    "writing": ("Writing it down", "Đang viết"),
    "done": ("Ready", "Đã xong"),
    "cancelled": ("Cancelled", "Đã hủy"),
    "failed": ("It failed", "Hỏng"),
    "days": ("days", "ngày"),
    "rows": ("views read", "lượt xem đã đọc"),
    "left": ("left", "còn lại"),
    "views": ("views", "lượt xem"),
    "visits": ("visits", "lượt ghé"),
    "visitors": ("visitors a day", "khách mỗi ngày"),
    "day": ("Day", "Ngày"),
    "by_day": ("Views by day", "Lượt xem theo ngày"),
    "by_hour": ("Views by hour of the day (UTC)", "Lượt xem theo giờ trong ngày (UTC)"),
    "by_page": ("Pages most viewed", "Trang xem nhiều nhất"),
    "by_referrer": ("Where visitors came from", "Khách đến từ đâu"),
    "direct": ("(typed, or not told)", "(gõ tay, hoặc không rõ)"),
    "page": ("Page", "Trang"),
    "referrer": ("Site", "Trang nguồn"),
    "download": ("Download", "Tải về"),
    "print": ("Open alone", "Mở riêng"),
    "made": ("Made", "Lập lúc"),
    "alone": (
        "Without scripts this page is loaded again every 5 seconds.",
        "Không có script, trang này tự tải lại mỗi 5 giây.",
    ),
}  # fmt: skip


def words(language: str) -> dict[str, str]:
    """All of them in one language; what is asked for and not known is English."""
    column = LANGUAGES.index(language) if language in LANGUAGES else 0
    return {name: both[column] for name, both in _WORDS.items()} | {"language": LANGUAGES[column]}


def number(value: float, language: str) -> str:
    """1234567 as 1,234,567 or 1.234.567."""
    text = f"{round(value):,}"
    return text.replace(",", ".") if language == "vi" else text

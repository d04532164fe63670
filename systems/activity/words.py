"""What the pages say, in Vietnamese and in English."""

from __future__ import annotations

WORDS = {
    "vi": {
        "title": "Nhật ký hoạt động",
        "application": "Ứng dụng",
        "log": "Nhật ký",
        "name": "Tên",
        "log_in": "Đăng nhập",
        "log_out": "Đăng xuất",
        "you_are": "Bạn là",
        "profile": "Giới thiệu",
        "save": "Lưu",
        "posts": "Bài viết",
        "by": "của",
        "heading": "Tiêu đề",
        "text": "Nội dung",
        "user": "Người dùng",
        "kind": "Loại",
        "since": "Từ",
        "until": "Đến",
        "any": "tất cả",
        "search": "Tìm",
        "time": "Lúc",
        "what": "Chuyện gì",
        "details": "Chi tiết",
        "older": "Cũ hơn",
        "newest": "Mới nhất",
        "nothing": "Không có gì khớp.",
        "zone": "Giờ Việt Nam",
        "waiting": "đang nằm trong tệp đệm",
        "lost": "đã mất (không còn chỗ)",
        "same": "Cả yêu cầu này",
        "sending": "Hàng đợi nhận sự kiện",
        "not_sending": "Hàng đợi không trả lời: sự kiện được giữ trên đĩa",
        "away": "Cơ sở dữ liệu không trả lời.",
        "wrong": "Không hiểu điều kiện tìm.",
        "other": "English",
    },
    "en": {
        "title": "Activity log",
        "application": "Application",
        "log": "Log",
        "name": "Name",
        "log_in": "Log in",
        "log_out": "Log out",
        "you_are": "You are",
        "profile": "About you",
        "save": "Save",
        "posts": "Posts",
        "by": "by",
        "heading": "Title",
        "text": "Text",
        "user": "User",
        "kind": "Kind",
        "since": "From",
        "until": "To",
        "any": "any",
        "search": "Search",
        "time": "Time",
        "what": "What",
        "details": "Details",
        "older": "Older",
        "newest": "Newest",
        "nothing": "Nothing matches.",
        "zone": "Time in Vietnam",
        "waiting": "in the spool",
        "lost": "lost (no room)",
        "same": "All of this request",
        "sending": "The queue takes events",
        "not_sending": "The queue does not answer: events are kept on the disk",
        "away": "The database does not answer.",
        "wrong": "What to look for was not understood.",
        "other": "Tiếng Việt",
    },
}
LANGUAGES = tuple(WORDS)


def choose(asked: str | None, kept: str | None, accepted: str) -> str:
    """The language: as asked, as kept in a cookie, or the first of Accept-Language that there is; else Vietnamese."""
    for given in (asked, kept, *(part.partition(";")[0].strip()[:2].lower() for part in accepted.split(","))):
        if given in WORDS:
            return given
    return LANGUAGES[0]

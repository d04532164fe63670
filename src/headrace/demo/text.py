"""The words of the demo's pages: a small grammar in English and one in Vietnamese. Data, and nothing else."""

from __future__ import annotations

ENGLISH_SUBJECTS = (
    "the mill by the river", "a young carpenter", "our neighbour Hanna", "the night train", "the old ferryman",
    "the village library", "a patient gardener", "the baker's daughter", "the lighthouse", "a travelling musician",
    "the school orchestra", "the water wheel", "a quiet stonemason", "the harbour master", "the last tram",
)  # fmt: skip
ENGLISH_VERBS = (
    "waits for", "remembers", "repairs", "carries", "paints", "measures", "listens to", "looks after", "writes about",
    "returns to", "saves", "describes", "opens", "borrows", "follows",
)  # fmt: skip
ENGLISH_OBJECTS = (
    "the first snow of the year", "a box of copper nails", "the song of the blackbird", "every letter from the coast",
    "the long wooden bridge", "a map with no roads on it", "the smell of fresh bread", "two buckets of clear water",
    "the clock above the market", "a story that nobody finished", "the empty football field", "the lamp in the window",
    "a basket full of apples", "the channel that feeds the wheel", "the names of forgotten streets",
)  # fmt: skip
ENGLISH_ENDINGS = (
    "before the rain begins", "while the kettle sings", "although nobody asked", "because the days are getting shorter",
    "until the lights go out", "and never tells anyone why", "as if there were no tomorrow", "with great care",
    "every second Thursday", "long after midnight", "so that the children can sleep", "and then starts again",
)  # fmt: skip
ENGLISH_SENTENCES = (
    "{s} {v} {o} {e}.", "{e}, {s} {v} {o}.", "People say that {s} {v} {o}.", "Once a week {s} {v} {o} {e}.",
    "If {s} {v} {o}, the whole street hears of it.", "Nobody knows why {s} {v} {o}, but it happens {e}.",
    "In spring {s} {v} {o}; in autumn it is the other way round.", "{s} {v} {o}, and {s2} {v2} {o2}.",
)  # fmt: skip

VIETNAMESE_SUBJECTS = (
    "người lái đò già", "cô giáo làng bên", "bác thợ mộc", "chuyến tàu đêm", "đứa trẻ bán báo", "người đưa thư",
    "bà cụ bán trà", "anh thợ sửa đồng hồ", "con mèo mướp", "thư viện nhỏ đầu phố", "gánh hàng rong", "ông tôi",
    "dòng kênh trước nhà", "chiếc cối xay nước", "người gác đèn biển",
)  # fmt: skip
VIETNAMESE_VERBS = (
    "chờ đợi", "nhớ mãi", "sửa lại", "mang theo", "kể về", "lắng nghe", "trông nom", "viết về", "trở lại với",
    "giữ gìn", "ngắm nhìn", "đi tìm", "mở ra", "mượn", "vẽ lại",
)  # fmt: skip
VIETNAMESE_OBJECTS = (
    "cơn mưa đầu mùa hạ", "chiếc cầu gỗ dài", "bài hát ru của mẹ", "mùi bánh mới nướng", "những lá thư từ miền biển",
    "ngọn đèn bên cửa sổ", "giỏ ổi chín thơm", "tấm bản đồ không có đường", "hai gánh nước trong", "câu chuyện dang dở",
    "mái đình rêu phong", "cánh đồng sau vụ gặt", "tiếng chuông chùa buổi sớm", "con đường làng lát gạch",
    "ánh trăng trên mặt sông",
)  # fmt: skip
VIETNAMESE_ENDINGS = (
    "trước khi trời sáng", "khi ấm nước vừa sôi", "dù chẳng ai nhắc", "vì ngày đang ngắn dần",
    "cho đến lúc phố lên đèn",
    "mà không nói với ai", "như thể không có ngày mai", "bằng tất cả sự kiên nhẫn", "mỗi chiều thứ năm",
    "rất lâu sau nửa đêm", "để lũ trẻ được ngủ yên", "rồi lại bắt đầu từ đầu",
)  # fmt: skip
VIETNAMESE_SENTENCES = (
    "{s} {v} {o} {e}.", "{e}, {s} {v} {o}.", "Người ta bảo rằng {s} {v} {o}.", "Mỗi tuần một lần, {s} {v} {o} {e}.",
    "Nếu {s} {v} {o} thì cả phố đều hay.", "Chẳng ai hiểu vì sao {s} {v} {o}, nhưng chuyện ấy vẫn xảy ra {e}.",
    "Mùa xuân {s} {v} {o}; mùa thu thì ngược lại.", "{s} {v} {o}, còn {s2} {v2} {o2}.",
)  # fmt: skip

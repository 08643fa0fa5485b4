"""Odd values."""

TEXTS = [
    "", " ", "nan", "inf", "-1", "0", "1e9", "9" * 30, "x", '"', "'", "\\", "../x", "/etc/hostname", "a/b", "é",
    "\u2028", "\u200b", "\x1b[31m", "%s", "{}", "${x}", "<unk>", "-x", "None", "true", "a" * 300,
]  # fmt: skip
VALUES = [
    None, True, False, -1, 0, 1, 3.5, float("nan"), float("inf"), 10**12, "", "x", "../x", "/etc/hostname", "80",
    [], [1, "a"], {}, {"x": 1}, "é\n", "__import__('os').mkdir('executed')",
]  # fmt: skip

//! Sizes as people type them.

/// Reads a number of bytes such as `65536`, `64KiB` or `20MB`.
///
/// # Errors
/// With what is wrong, for whoever typed it.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        unit => return Err(format!("unknown unit '{unit}'; use KiB, MiB, GiB, kB, MB or GB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{text}' is no number of bytes"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text} is too large"))
}

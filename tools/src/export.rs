//! Names of exported frames.

use circbuf_driver::ring::Timestamp;

/// `<sec>_<usec>_<channel>.jpeg`, with six digits of microseconds. If that name exists, as after a
/// clock was set back, `_<sequence>` stands in front of the suffix; should that exist, too,
/// `_2`, `_3` and so on follow.
#[must_use]
pub fn jpeg_name(
    time: Timestamp,
    channel: u32,
    sequence: u64,
    exists: impl Fn(&str) -> bool,
) -> String {
    let stem = format!("{}_{:06}_{channel}", time.sec, time.usec);
    let numbered = format!("{stem}_{sequence}.jpeg");
    let further = (2u64..).map(|copy| format!("{stem}_{sequence}_{copy}.jpeg"));
    [format!("{stem}.jpeg"), numbered]
        .into_iter()
        .chain(further)
        .find(|name| !exists(name))
        .expect("directories have fewer than 2^64 names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_exists_gets_the_sequence() {
        let time = Timestamp { sec: 1_191_135_874, usec: 565 };
        let mut taken = Vec::new();
        let mut name = |channel, sequence| {
            let name = jpeg_name(time, channel, sequence, |name| taken.iter().any(|t| t == name));
            taken.push(name.clone());
            name
        };
        assert_eq!(name(2, 7), "1191135874_000565_2.jpeg");
        assert_eq!(name(2, 8), "1191135874_000565_2_8.jpeg");
        assert_eq!(name(2, 8), "1191135874_000565_2_8_2.jpeg");
        assert_eq!(name(3, 8), "1191135874_000565_3.jpeg");
    }

    #[test]
    fn a_name_that_is_in_the_directory_is_not_given() {
        let time = Timestamp { sec: 1, usec: 999_999 };
        let name = jpeg_name(time, 0, 41, |name| name == "1_999999_0.jpeg");
        assert_eq!(name, "1_999999_0_41.jpeg");
    }
}

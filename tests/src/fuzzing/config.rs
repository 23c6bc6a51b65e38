//! The configuration file of the program.

/// What has to hold of `read`, which reads a configuration, whatever the bytes of the file.
///
/// # Panics
/// If a property does not hold.
pub fn check(read: impl Fn(&str) -> Result<(), String>, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match read(text) {
        Ok(()) => {
            assert_eq!(read(&format!("{text}\n# the end\n")), Ok(()), "a comment changes nothing");
            let unknown = format!("{text}\n[no-such-table]\nno-such-key = 1\n");
            assert!(read(&unknown).is_err(), "unknown keys are errors: {unknown:?}");
        }
        Err(message) => check_message(text, &message),
    }
}

/// One line that names one of the file.
fn check_message(text: &str, message: &str) {
    assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
    let named = message.strip_prefix("line ").and_then(|rest| rest.split_once(':'));
    if let Some((line, _)) = named {
        let line: usize = line.parse().expect("a number");
        assert!((1..=text.lines().count() + 1).contains(&line), "{message}");
    }
}

/// Configurations that are lawful, and some that are nearly so.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "",
        "[source]\nsource = \"noise:1000-2000\"\nwidth = 640\nquality = 80\nwindow = \"0,255\"\n",
        "[ring]\nmodel = \"nc393\"\nbytes = \"64MiB\"\ngap = \"skip\"\nbare = true\n",
        "[pace]\nfps = 12.5\nbus_mb_s = \"unlimited\"\n[limits]\nseconds = \"1.5s\"\nframes = 3\n",
        "[driver]\ndevice = \"emu:\"\nfrom = \"oldest\"\nmax_lost = \"1%\"\ntimeout = 10\n",
        "[proc]\nprocessor = \"decode=-\"\npolicy = \"fps=5:drop-oldest\"\nworkers = 2\n",
        "[arch]\ndir = \"A\"\nsegment_bytes = 1000000\ndurability = \"interval=50\"\nengine = \"auto\"\n",
        "[arch]\nqueue = 0\n# \u{fc}ber\n",
        "source.quality = 101\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

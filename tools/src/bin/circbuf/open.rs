//! Opens the devices of somebody else, which may not be there yet.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use circbuf_driver::device::pci::{PciOptions, PciPlace};
use circbuf_driver::device::{Device, OpenError};

use crate::failure::{Failure, log_line};
use crate::options::FromChoice;
use crate::plan::{DriverPlan, Place};
use crate::status::wait;

/// How long a driver waits for a ring that does not exist yet, if `--timeout` does not tell.
const APPEARANCE: Duration = Duration::from_secs(5);

/// How long a ring may be seen with the register page of the one that takes its place. Copies stay so.
const REPLACEMENT: Duration = Duration::from_millis(200);

/// A device that is being opened.
struct Opening<'a> {
    place: &'a Place,
    /// Since when it is seen with the register page of another one.
    foreign_since: Option<Instant>,
    waited: bool,
    device: Option<Device>,
}

/// Opens the devices, waiting for them to appear: cameras and driver may be started in either order. A
/// ring that a camera left behind is not waited on, but for the one that takes its place. Also tells
/// which had to be waited for. All are looked at all the time, so that none is taken for one that was there
/// before.
pub(crate) fn open_all(
    places: &[Place],
    pci: PciOptions,
    driver: &DriverPlan,
    interrupted: &AtomicBool,
) -> Result<Vec<(Device, bool)>, Failure> {
    let patience = driver.driver.timeout.map_or(APPEARANCE, |timeout| timeout.duration());
    let end = Instant::now() + patience;
    let opening = |place| Opening { place, foreign_since: None, waited: false, device: None };
    let mut openings: Vec<Opening<'_>> = places.iter().map(opening).collect();
    loop {
        for opening in openings.iter_mut().filter(|opening| opening.device.is_none()) {
            opening.look((driver, pci), end, patience)?;
        }
        let Some(missing) = openings.iter().find(|opening| opening.device.is_none()) else { break };
        if wait(interrupted) {
            let place = missing.place;
            return Err(Failure::failed(format!("{place}: interrupted while it was waited for")));
        }
    }
    let opened = openings.into_iter();
    let opened: Vec<_> =
        opened.filter_map(|opening| Some((opening.device?, opening.waited))).collect();
    refuse_twins(places, &opened)?;
    Ok(opened)
}

/// Two drivers of one ring would be two channels with the same frames.
fn refuse_twins(places: &[Place], opened: &[(Device, bool)]) -> Result<(), Failure> {
    let opened: Vec<_> = places.iter().zip(opened).collect();
    for (n, (place, (device, _))) in opened.iter().enumerate() {
        let twin = opened[..n].iter().find(|(_, (other, _))| device.is_same_file(other));
        if let Some((other, _)) = twin {
            return Err(Failure::usage(format!(
                "--device {place} is the same ring as --device {other}; leave one of them out"
            )));
        }
    }
    Ok(())
}

impl Opening<'_> {
    /// Opens the ring if it can be; fails if there is nothing to wait for, or no time left.
    fn look(
        &mut self,
        (driver, pci): (&DriverPlan, PciOptions),
        end: Instant,
        patience: Duration,
    ) -> Result<(), Failure> {
        let opened = match self.place {
            Place::Path(path) => Device::open(path, driver.max_frame_bytes()?),
            Place::Pci(place) => Device::open_pci(place, pci),
        };
        let Some(waits_for) = self.waits_for(&opened, driver) else {
            self.device = Some(driver.with_bus(opened?));
            return Ok(());
        };
        if Instant::now() >= end {
            opened?;
            return Err(Failure::failed(format!(
                "{}: {waits_for}, and no new one came; use --from oldest to read what is left in it",
                self.place
            )));
        }
        if !std::mem::replace(&mut self.waited, true) {
            let (place, patience) = (self.place, patience.as_secs_f64());
            log_line(&format!("circbuf: {place}: {waits_for}; waiting up to {patience} s"));
        }
        Ok(())
    }

    fn waits_for(
        &mut self,
        opened: &Result<Device, OpenError>,
        driver: &DriverPlan,
    ) -> Option<&'static str> {
        let is_foreign = opened.as_ref().is_ok_and(Device::has_foreign_page);
        self.foreign_since = is_foreign.then(|| self.foreign_since.unwrap_or_else(Instant::now));
        let from_oldest = driver.driver.from == Some(FromChoice::Oldest);
        match opened {
            Err(error) if error.is_not_found() => match self.place {
                Place::Path(path) if may_appear(path) => Some("there is no such ring yet"),
                Place::Pci(PciPlace::VfioUser(socket)) if may_appear(socket) => {
                    Some("nobody serves it yet")
                }
                _ => None,
            },
            Ok(_) if self.foreign_since.is_some_and(|since| since.elapsed() < REPLACEMENT) => {
                Some("its register page is that of another ring")
            }
            Ok(device) if !from_oldest && (device.has_ended() || device.is_abandoned()) => {
                Some("the camera of this ring has ended")
            }
            _ => None,
        }
    }
}

/// Nodes do not appear because somebody starts a camera, and nothing appears in a folder that is not
/// there.
fn may_appear(path: &Path) -> bool {
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    folder.is_dir() && folder != Path::new("/dev")
}

/// A window so short, in milliseconds, is missed by whoever is not scheduled for a moment.
const SHORT_MS: f64 = 20.0;

fn by_pointer(window_ms: f64) -> String {
    let told = "with a write pointer: what is lost is counted as long as it is looked at every";
    match window_ms < SHORT_MS {
        true => format!(
            "{told} {:.1} us, which is short: tell the largest frame (--max-frame-bytes) and the \
             speed of the camera's bus (--bus-mb-s-max), if they are less than is believed",
            window_ms * 1e3
        ),
        false => format!("{told} {window_ms:.0} ms"),
    }
}

pub(crate) fn describe(name: &str, device: &Device) -> String {
    let bytes = device.ring().bytes();
    let by = match (device.registers(), device.pointer()) {
        (Some(_), _) => "with counters".to_owned(),
        (None, Some(pointer)) => by_pointer(pointer.window_ns() as f64 / 1e6),
        (None, None) => {
            "without counters: what is lost is estimated, and torn frames may be accepted"
                .to_owned()
        }
    };
    format!("{name}, ring of {bytes} bytes {by}")
}

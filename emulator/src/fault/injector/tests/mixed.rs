//! Several faults at once, and when they strike.
use super::*;
use crate::fault::{Fault, When};

fn all_mixed(rate: f64) -> Faults {
    let fault = |kind| Fault { kind, when: When::Rate(rate) };
    Faults { seed: 5, faults: FaultKind::ALL.map(fault).to_vec() }
}

#[test]
fn all_kinds_mixed_keep_the_books_and_give_the_same_bytes_again() {
    let run = |seed| {
        let mut rig = Rig::new(&Faults { seed, ..all_mixed(0.02) }, (Gap::Zero, true));
        for number in 0..5000_usize {
            rig.write(&payload(1 + number * 37 % 900));
        }
        rig.fpga.end();
        (rig.at(0, RING_BYTES as usize), rig)
    };
    let (bytes, rig) = run(5);
    let (again, twin) = run(5);
    assert!(bytes == again && rig.ledger == twin.ledger);
    assert!(run(6).1.ledger != rig.ledger);
    assert_eq!(rig.register(reg::FRAMES), 5000);
    let tally = rig.injector.tally();
    assert_eq!(tally.by_kind().count(), FaultKind::ALL.len(), "{tally:?}");
    let count =
        |is: fn(&LedgerEntry) -> bool| rig.ledger.iter().filter(|&entry| is(entry)).count() as u64;
    assert_eq!(tally.frames(), count(|entry| !entry.faults.is_empty()));
    assert_eq!(tally.damaged(), count(|entry| entry.damaged));
    assert_eq!(tally.undetectable(), count(|entry| entry.undetectable));
    assert!(rig.ledger.iter().all(|entry| entry.faults.iter().count() <= 1));
    assert!(rig.ledger.iter().enumerate().all(|(at, entry)| entry.number == at as u64));
}

#[test]
fn what_falls_on_one_frame_strikes_those_that_follow() {
    let faults = ["unescaped@2", "stall@2", "stall@2", "no-trailer@2", "gap-skip@3"];
    let faults = faults.map(|text| text.parse().unwrap()).to_vec();
    let mut rig = Rig::new(&Faults { seed: 1, faults }, (Gap::Zero, true));
    // There is no FF FF in one byte: the first fault waits for a longer payload.
    [9, 9, 1, 9, 9, 9, 9, 9].into_iter().for_each(|bytes| rig.write(&payload(bytes)));
    let told: Vec<_> = rig.ledger.iter().map(|entry| entry.faults.iter().next()).collect();
    use FaultKind::{GapSkip, NoTrailer, Stall, Unescaped};
    let expected =
        [None, None, Some(Stall), Some(Unescaped), Some(NoTrailer), Some(Stall), Some(GapSkip)];
    assert_eq!(told[..7], expected);
    assert_eq!(told[7], None);
}

#[test]
fn a_sprint_that_falls_due_in_a_sprint_is_part_of_it() {
    let faults = ["sprint@1", "sprint@9", "stall@9", "sprint@60"];
    let faults = faults.map(|text| text.parse().unwrap()).to_vec();
    let mut rig = Rig::new(&Faults { seed: 1, faults }, (Gap::Zero, true));
    (0..62).for_each(|_| rig.write(&payload(40)));
    let struck = |number: usize| rig.ledger[number].faults.iter().next();
    // 53 slots of 96 bytes are more than a ring and a slot of 960.
    assert_eq!([53, 54, 55].map(struck), [Some(FaultKind::Sprint), Some(FaultKind::Stall), None]);
    assert_eq!([59, 60].map(struck), [None, Some(FaultKind::Sprint)]);
    assert_eq!(rig.injector.tally().faults(), 3);
}

#[test]
fn faults_strike_when_they_are_told() {
    let struck = |when: &str| {
        let text = format!("[[fault]]\nkind = \"stall\"\n{when}");
        let mut rig = Rig::new(&Faults::from_toml(&text).unwrap(), (Gap::Zero, true));
        (0..1000).for_each(|_| rig.write(&payload(9)));
        let struck = rig.ledger.iter().filter(|entry| !entry.faults.is_empty());
        struck.map(|entry| entry.number).collect::<Vec<_>>()
    };
    assert_eq!(struck("at = [17, 3, 17]"), [3, 17]);
    assert_eq!(struck("every = 400"), [400, 800]);
    // A frame a second.
    assert_eq!(struck("at_s = [7.5, 0, 7.25]"), [0, 8, 9]);
    let rate = struck("rate = 0.1").len();
    assert!((60..140).contains(&rate), "{rate}");
}

#[test]
fn a_bare_ring_has_no_headers_to_spoil() {
    let faults = at(FaultKind::IrqLost, 1, 1);
    let file = RingFile::memfd(RING_BYTES).unwrap();
    let geometry = Geometry::default();
    let (gap, stamped) = (Gap::Zero, false);
    let setup = Setup { gap, stamped, payload_bytes_max: 900, geometry, frame_period_ns: 0 };
    let error = Injector::new(&faults, &Fpga::new(file, setup).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "irq-lost is about frame headers, but the ring is bare: nobody stamps any"
    );
    // Flips strike payload and trailer there.
    let faults = Faults::from_toml("[[fault]]\nkind = \"bit-flip\"\nrate = 1.0").unwrap();
    let mut rig = Rig::new(&faults, (Gap::Skip, false));
    (0..40).for_each(|_| rig.write(&payload(40)));
    assert!((1..39).all(|number| rig.at(number * 96 + 64, 32) == [0xEE; 32]));
}

//! Shows the way to a counterexample as a table that can be read.

use std::fmt::Write as _;
use std::ops::Range;

use super::check::Check;
use super::machine::{Machine, Move, State};
use super::reader::{Poll, Step, Verdict};
use super::world::{Camera, GAP, Tells, Word};
use super::writer::Op;

/// Who makes a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Party {
    Fpga,
    Handler,
    Reader,
}

fn party(happens: Move) -> Party {
    match happens {
        Move::Fpga(_) => Party::Fpga,
        Move::Interrupt | Move::Stamp(_) => Party::Handler,
        Move::Reader(_) => Party::Reader,
    }
}

/// The states that a way leads through, the first one included; `None` if it is none.
fn replay(machine: &Machine, way: &[Move]) -> Option<Vec<State>> {
    let (mut states, mut possible) = (vec![machine.initial()], vec![]);
    for &happens in way {
        let mut state = *states.last()?;
        machine.moves(&state, &mut possible);
        possible.contains(&happens).then_some(())?;
        machine.apply(&mut state, happens);
        states.push(state);
    }
    Some(states)
}

/// Stretches of moves by the same party.
fn runs(way: &[Move]) -> Vec<Range<usize>> {
    let starts: Vec<usize> = (0..way.len())
        .filter(|&at| at == 0 || party(way[at - 1]) != party(way[at]))
        .chain([way.len()])
        .collect();
    starts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// The same moves in an order in which the parties take turns as seldom as possible: what they do at
/// the same time can stand in any order, and this one reads best.
fn with_few_turns(machine: &Machine, mut way: Vec<Move>) -> Vec<Move> {
    let verdict = |way: &[Move]| {
        replay(machine, way).and_then(|states| machine.verdict(states.last().expect("a way")))
    };
    let wanted = verdict(&way);
    loop {
        let turns = runs(&way).len();
        let better =
            exchanges(&way).find(|other| runs(other).len() < turns && verdict(other) == wanted);
        match better {
            Some(better) => way = better,
            None => return way,
        }
    }
}

/// All ways in which two neighbouring stretches, or the ends of them, have changed places.
fn exchanges(way: &[Move]) -> impl Iterator<Item = Vec<Move>> {
    let cuts = (0..way.len()).flat_map(move |from| (from + 1..way.len()).map(move |to| (from, to)));
    cuts.flat_map(move |(from, to)| {
        (to + 1..=way.len()).map(move |end| {
            let mut other = way.to_vec();
            other[from..end].rotate_left(to - from);
            other
        })
    })
}

/// A table in Markdown.
pub fn table(machine: &Machine, way: Vec<Move>) -> String {
    let way = with_few_turns(machine, way);
    let states = replay(machine, &way).expect("the way can be gone");
    let mut table = String::from("| | who | does | the ring then |\n|-:|---|---|---|\n");
    for (number, run) in (1..).zip(runs(&way)) {
        let (who, does) = match party(way[run.start]) {
            Party::Fpga => ("FPGA", fpga(machine, &states, &way, run.clone())),
            Party::Handler => ("handler", handler(machine, &states, &way, run.clone())),
            Party::Reader => ("reader", reader(machine, &states, &way, run.clone())),
        };
        let ring = ring(&machine.camera, &states[run.end]);
        writeln!(table, "| {number} | {who} | {does} | `{ring}` |").expect("a string takes it");
    }
    table
}

/// The ring with the slot first that stands in front of the first frame.
fn ring(camera: &Camera, state: &State) -> String {
    let ring = &state.ring[..usize::from(camera.layout.ring)];
    let (front, slot) = ring.split_at(ring.len() - usize::from(GAP));
    slot.iter().chain(front).map(|word| name(*word)).collect::<Vec<_>>().join(" ")
}

fn name(word: Word) -> String {
    match word {
        Word::Zero => "..".into(),
        Word::Payload { frame, index } => format!("{}{frame}", char::from(b'a' + index)),
        Word::Pair { frame } => format!("!{frame}"),
        Word::Trailer { frame, .. } => format!("T{frame}"),
        Word::Parameters { frame } => format!("h{frame}"),
        Word::Mark { signed: true, .. } => "FF".into(),
        Word::Mark { signed: false, length, .. } => format!("L{length}"),
    }
}

/// What the FPGA's stores of one stretch are: whole frames by their numbers, others by their words.
fn fpga(machine: &Machine, states: &[State], way: &[Move], run: Range<usize>) -> String {
    let ops: Vec<(usize, Op)> = run
        .filter_map(|at| match way[at] {
            Move::Fpga(behind) => Some(states[at].fpga.at(behind)),
            _ => None,
        })
        .map(|at| (at, machine.programs.fpga[at]))
        .collect();
    let (mut whole, mut words) = (vec![], vec![]);
    let mut from = 0;
    for (frame, end) in machine.programs.frame_ends.iter().enumerate() {
        let of_frame = |op: &Op| matches!(op, Op::Word(..));
        let all = machine.programs.fpga[from..usize::from(*end)].iter().filter(|op| of_frame(op));
        let range = from..usize::from(*end);
        let here = ops.iter().filter(|(at, op)| range.contains(at) && of_frame(op));
        let is_whole = machine.frames[frame].number.is_some();
        if is_whole && here.clone().count() == all.count() {
            whole.push(frame.to_string());
        } else {
            words.extend(here.map(|(_, op)| match op {
                Op::Word(_, Word::Zero) => "zero".to_string(),
                Op::Word(_, word) => name(*word),
                _ => String::new(),
            }));
        }
        from = range.end;
    }
    let mut told = vec![];
    match whole.as_slice() {
        [] => {}
        [one] => told.push(format!("frame {one}")),
        [first, .., last] => told.push(format!("frames {first} to {last}")),
    }
    if !words.is_empty() {
        told.push(words.join(" "));
    }
    told.extend(registers(machine.camera.tells, ops.iter().map(|(_, op)| *op)));
    told.join(", ")
}

/// What the last changes of what the camera tells were, in their order.
fn registers(tells: Tells, ops: impl Iterator<Item = Op>) -> Vec<String> {
    let mut last: Vec<(&str, u8)> = vec![];
    for op in ops {
        let told = match op {
            Op::Epoch(number) => ("epoch", number),
            Op::Reserved(cursor) => ("reserved", cursor),
            Op::Written(cursor) => ("written", cursor),
            Op::Publish(progress) if tells.counts() => ("complete", progress.complete),
            Op::Publish(progress) if tells == Tells::Pointer => ("pointer", progress.complete),
            _ => continue,
        };
        last.retain(|(name, _)| *name != told.0);
        last.push(told);
    }
    last.into_iter().map(|(name, number)| format!("{name} {number}")).collect()
}

fn handler(machine: &Machine, states: &[State], way: &[Move], run: Range<usize>) -> String {
    let (mut told, mut ops) = (vec![], vec![]);
    for at in run {
        let (Move::Stamp(behind), Some((frame, buffer))) = (way[at], states[at].stamping) else {
            continue;
        };
        let op = machine.programs.stamps[usize::from(frame)][buffer.at(behind)];
        ops.push(op);
        match op {
            Op::Length(_, length) => told.push(format!("L{length}")),
            Op::Word(_, word @ Word::Parameters { .. }) => told.push(name(word)),
            Op::Word(..) if told.len() >= 2 => told = vec![format!("stamps frame {frame}")],
            Op::Word(_, word) => told.push(name(word)),
            _ => {}
        }
    }
    told.extend(registers(machine.camera.tells, ops.into_iter()));
    if told.is_empty() { "begins".into() } else { told.join(", ") }
}

fn reader(machine: &Machine, states: &[State], way: &[Move], run: Range<usize>) -> String {
    let (mut told, mut copied, mut again) = (vec![], vec![], vec![]);
    for at in run.clone() {
        let (Move::Reader(load), state) = (way[at], &states[at]) else { continue };
        let (now, next) = (state.reader, states[at + 1].reader);
        let seen = now.place(machine, load).map(|place| name(state.ring[place]));
        let seen = seen.unwrap_or_default();
        match now.step {
            Step::Attach => told.push(format!("waits at {}", next.start)),
            Step::Poll if Poll::of(load) == Poll::Follow => {
                told.push(format!("written {}", state.written));
            }
            Step::Poll if Poll::of(load) == Poll::GiveUp => {
                told.push(format!("goes on at {}", next.start));
            }
            Step::Poll if machine.camera.tells == Tells::Pointer => {
                told.push(format!("pointer {}", state.progress.complete));
            }
            Step::Poll => told.push(format!("complete {}", state.progress.complete)),
            Step::Mark | Step::Trailer | Step::Chain | Step::Search | Step::Guard => {
                told.push(format!("finds {seen}"));
            }
            Step::Before => told.push("checks FF".into()),
            Step::Ahead | Step::Copy => copied.push(seen),
            Step::After if machine.check == Check::SignatureAfter => told.push("checks FF".into()),
            Step::After | Step::AfterGuard => again.push(seen),
            Step::Reach => again.push(reach(machine, state)),
            Step::GuardReach | Step::Epoch | Step::Done(_) => {}
        }
        if next.step != now.step || at + 1 == run.end {
            let copies = if now.step == Step::Ahead { "copies ahead" } else { "copies" };
            told.extend((!copied.is_empty()).then(|| format!("{copies} {}", copied.join(" "))));
            copied.clear();
        }
    }
    if !again.is_empty() {
        told.push(format!("checks {}", again.join(" ")));
    }
    if matches!(states[run.end].reader.step, Step::Done(Verdict::Delivered(_))) {
        told.push("**delivers**".into());
    }
    told.join(", ")
}

/// What the reader sees of the place where the writer is.
fn reach(machine: &Machine, state: &State) -> String {
    match machine.camera.tells {
        Tells::Pointer => format!("pointer {}", machine.camera.layout.at(state.progress.complete)),
        _ => format!("reserved {}", state.reserved),
    }
}

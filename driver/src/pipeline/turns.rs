//! Which of several channels is served next: computed from how near their writers are, without a clock.

use super::rhythm::Pause;

/// What the capturing thread does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Serves the channel at this place.
    Serve(usize),
    /// Looks again at once: no channel that is looked at all the time had anything.
    Relax,
    /// Sleeps for so many nanoseconds, until the first channel is due.
    Sleep(u64),
}

/// Where the channels stand.
///
/// The one goes first whose ring has the smallest share left between reader and writer: it is the one that
/// would lose frames first. So a channel may have nearly all of the thread for a while, but not for
/// ever: whoever was passed over [`PASSES`](Self::PASSES) times for each channel that there is comes
/// next, so that one that no thread can keep up with does not take the others with it. Where no counter
/// tells how near the writer is, everybody's turn comes round.
#[derive(Debug)]
pub(super) struct Turns {
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Not to be looked at before.
    due_ns: u64,
    /// It had nothing, and is spun for: the others come first.
    is_empty: bool,
    /// How often others were served since it could have been.
    passed: usize,
}

impl Turns {
    /// With four channels three quarters of the steps and more are for the one that needs them most.
    const PASSES: usize = 4;

    pub(super) fn of(channels: usize) -> Turns {
        Turns { places: vec![Place::default(); channels] }
    }

    /// Who is next. `headroom` tells which share of a channel's ring the writer may still write before it
    /// reaches what is read next; `None` where nobody knows.
    pub(super) fn next(&mut self, now_ns: u64, headroom: impl Fn(usize) -> Option<f64>) -> Next {
        let due = |place: &Place| place.due_ns <= now_ns;
        // A ring alone has nobody to be compared with, at each of millions of steps a second.
        if let [only] = &self.places[..]
            && due(only)
            && !only.is_empty
        {
            return Next::Serve(0);
        }
        let (mut waiting, mut only) = (0, None);
        for (index, _) in self.places.iter().enumerate().filter(|(_, p)| due(p) && !p.is_empty) {
            (waiting, only) = (waiting + 1, Some(index));
        }
        let next = match self.overdue(now_ns, &headroom) {
            Some(overdue) if waiting > 0 => Some(overdue),
            _ if waiting <= 1 => only,
            _ => self.nearest(now_ns, &headroom),
        };
        match next {
            Some(next) => {
                self.pass_over_others(next, now_ns);
                Next::Serve(next)
            }
            None => self.pause_all(now_ns),
        }
    }

    /// There was nothing.
    pub(super) fn pause(&mut self, index: usize, now_ns: u64, pause: Pause) {
        let place = &mut self.places[index];
        match pause {
            Pause::Spin => place.is_empty = true,
            Pause::Sleep(nap) => place.due_ns = now_ns.saturating_add(nap.as_nanos() as u64),
        }
    }

    /// The channel at this place is over; those behind it move up.
    pub(super) fn remove(&mut self, index: usize) {
        self.places.remove(index);
    }

    /// The one that was passed over too often, also if it had nothing the last time.
    fn overdue(&self, now_ns: u64, headroom: impl Fn(usize) -> Option<f64>) -> Option<usize> {
        let channels = self.places.len();
        let is_overdue = |(index, place): &(usize, &Place)| {
            place.due_ns <= now_ns
                && place.passed >= channels
                && (place.passed >= Self::PASSES * channels || headroom(*index).is_none())
        };
        let overdue = self.places.iter().enumerate().filter(is_overdue);
        overdue.max_by_key(|(_, place)| place.passed).map(|(index, _)| index)
    }

    /// The one with the least headroom; of those of which nobody knows, the one that has waited longest.
    fn nearest(&self, now_ns: u64, headroom: impl Fn(usize) -> Option<f64>) -> Option<usize> {
        let places = self.places.iter().enumerate();
        let waiting = places.filter(|(_, place)| place.due_ns <= now_ns && !place.is_empty);
        let urgency = |(index, place): (usize, &Place)| {
            (index, headroom(index).unwrap_or(f64::INFINITY), usize::MAX - place.passed)
        };
        let first = waiting.map(urgency).min_by(|(_, near, passed), (_, than, than_passed)| {
            near.total_cmp(than).then(passed.cmp(than_passed))
        });
        first.map(|(index, ..)| index)
    }

    fn pass_over_others(&mut self, served: usize, now_ns: u64) {
        for (index, place) in self.places.iter_mut().enumerate() {
            match index == served {
                true => (place.is_empty, place.passed) = (false, 0),
                false => place.passed += usize::from(place.due_ns <= now_ns),
            }
        }
    }

    /// Nobody has anything: back to all that are spun for, or sleep until somebody is due.
    fn pause_all(&mut self, now_ns: u64) -> Next {
        let mut relaxes = false;
        for place in self.places.iter_mut().filter(|place| place.is_empty) {
            (place.is_empty, relaxes) = (false, true);
        }
        let first_ns = self.places.iter().map(|place| place.due_ns).min();
        match relaxes {
            true => Next::Relax,
            false => Next::Sleep(first_ns.map_or(0, |due_ns| due_ns.saturating_sub(now_ns))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    #[test]
    fn the_least_headroom_comes_first_and_nobody_waits_for_ever() {
        for seed in 0..50 {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
            let channels = 2 + random.next_u64() as usize % 3;
            let (mut turns, mut passed) = (Turns::of(channels), vec![0; channels]);
            for step in 0..2000 {
                let shares: Vec<f64> =
                    (0..channels).map(|_| (random.next_u64() % 1000) as f64 / 1000.0).collect();
                let Next::Serve(served) = turns.next(0, |index| Some(shares[index])) else {
                    panic!("all have something: seed {seed}, step {step}");
                };
                let is_overdue = passed[served] >= Turns::PASSES * channels;
                let is_least = shares.iter().all(|&share| shares[served] <= share);
                assert!(is_least || is_overdue, "seed {seed}, step {step}: {served} of {shares:?}");
                passed.iter_mut().for_each(|passed| *passed += 1);
                passed[served] = 0;
                let longest = passed.iter().max();
                assert!(
                    longest < Some(&((Turns::PASSES + 1) * channels)),
                    "seed {seed}: {passed:?}"
                );
            }
        }
    }

    #[test]
    fn without_counters_everybody_has_a_turn() {
        let mut turns = Turns::of(3);
        let served: Vec<Next> = (0..9).map(|_| turns.next(0, |_| None)).collect();
        for round in served.chunks(3) {
            assert!((0..3).all(|index| round.contains(&Next::Serve(index))), "{served:?}");
        }
        // The others can tell, and one of them is always in a hurry.
        let headroom = |index: usize| (index > 0).then_some(0.1 * index as f64);
        let served = (0..400).filter(|_| turns.next(0, headroom) == Next::Serve(0)).count();
        assert!((80..=110).contains(&served), "{served} of 400");
    }

    #[test]
    fn what_had_nothing_comes_behind_what_may_have_something() {
        let mut turns = Turns::of(2);
        let headroom = |index: usize| Some([0.1, 0.9][index]);
        assert_eq!(turns.next(0, headroom), Next::Serve(0));
        turns.pause(0, 0, Pause::Spin);
        let served: Vec<Next> = (0..80).map(|_| turns.next(0, headroom)).collect();
        let empty = served.iter().filter(|&&next| next == Next::Serve(0)).count();
        assert!((1..=70).contains(&empty), "looked at again now and then: {served:?}");
        turns.pause(0, 0, Pause::Spin);
        turns.pause(1, 0, Pause::Spin);
        assert_eq!(turns.next(0, headroom), Next::Relax);
        assert_eq!(turns.next(0, headroom), Next::Serve(0), "and from the beginning");
    }

    #[test]
    fn the_thread_sleeps_until_the_first_one_is_due() {
        let mut turns = Turns::of(3);
        let nap = |us| Pause::Sleep(Duration::from_micros(us));
        turns.pause(0, 1000, nap(50));
        turns.pause(1, 1000, nap(20));
        turns.pause(2, 1000, Pause::Spin);
        assert_eq!(turns.next(1000, |_| Some(0.5)), Next::Relax, "one is spun for");
        assert_eq!(turns.next(1000, |_| Some(0.5)), Next::Serve(2));
        turns.pause(2, 1000, nap(100));
        assert_eq!(turns.next(2000, |_| Some(0.5)), Next::Sleep(19_000));
        assert_eq!(turns.next(21_000, |_| Some(0.5)), Next::Serve(1));
        turns.remove(1);
        assert_eq!(turns.next(51_000, |_| Some(0.5)), Next::Serve(0));
        turns.remove(0);
        assert_eq!(turns.next(101_000, |_| Some(0.5)), Next::Serve(0), "it has moved up");
    }
}

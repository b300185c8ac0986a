//! A part of a schedule that an accelerator recorded, in one way or in two of which the faster stays.

use std::time::Duration;

use crate::accelerator::CapturedWork;
use crate::error::Result;

/// Launches of each way of which the median counts.
const TRIALS: usize = 5;

/// Work that gives the same bits in each of its ways: in the order of the schedule, or in several lanes.
pub(crate) struct Recorded {
    ways: Vec<Way>,
}

struct Way {
    work: Box<dyn CapturedWork>,
    times: Vec<Duration>,
}

impl Recorded {
    /// What could be recorded of these ways; where one of them could not, another does.
    ///
    /// # Errors
    /// That of the last way, if none could be recorded.
    pub(crate) fn new(ways: impl IntoIterator<Item = Result<Box<dyn CapturedWork>>>) -> Result<Self> {
        let (mut recorded, mut failed) = (Vec::new(), None);
        for way in ways {
            match way {
                Ok(work) => recorded.push(Way {
                    work,
                    times: Vec::new(),
                }),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if recorded.is_empty() => Err(error),
            Some(error) => {
                eprintln!("steps are recorded in one way only: {error}");
                Ok(Self { ways: recorded })
            }
            None => Ok(Self { ways: recorded }),
        }
    }

    /// Gives it to the device once more. While there is a choice, the ways take turns, and each launch is waited for.
    pub(crate) fn launch(&mut self) -> Result<()> {
        if let [only] = &self.ways[..] {
            return only.work.launch();
        }
        let Some(next) = self.ways.iter_mut().min_by_key(|way| way.times.len()) else {
            return Ok(());
        };
        next.times.push(next.work.launch_timed()?);
        if self.ways.iter().all(|way| way.times.len() == TRIALS) {
            self.ways.sort_by_key(Way::median);
            self.ways.truncate(1);
        }
        Ok(())
    }
}

impl Way {
    fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;
    use crate::error::Error;

    /// Work that says when it is launched, and takes times of its own.
    struct Told {
        name: &'static str,
        log: Arc<Mutex<Vec<&'static str>>>,
        times: Mutex<Vec<u64>>,
    }

    impl CapturedWork for Told {
        fn launch(&self) -> Result<()> {
            self.log.lock().unwrap().push(self.name);
            Ok(())
        }

        fn launch_timed(&self) -> Result<Duration> {
            self.launch()?;
            let next = self.times.lock().unwrap().pop();
            next.map(Duration::from_micros)
                .ok_or_else(|| Error::internal("timed too often"))
        }
    }

    fn ways(times: [(&'static str, [u64; TRIALS]); 2]) -> (Recorded, Arc<Mutex<Vec<&'static str>>>) {
        let log = Arc::default();
        let way = |(name, times): (&'static str, [u64; TRIALS])| -> Box<dyn CapturedWork> {
            Box::new(Told {
                name,
                log: Arc::clone(&log),
                times: Mutex::new(times.to_vec()),
            })
        };
        let ways = times.map(way).map(Ok);
        (Recorded::new(ways).unwrap(), log)
    }

    #[test]
    fn a_way_that_cannot_be_recorded_leaves_the_other() {
        let refused = || Err(Error::internal("refused"));
        let told = Told {
            name: "order",
            log: Arc::default(),
            times: Mutex::default(),
        };
        let log = told.log.clone();
        let mut recorded = Recorded::new([Ok(Box::new(told) as Box<dyn CapturedWork>), refused()]).unwrap();
        recorded.launch().unwrap();
        assert_eq!(*log.lock().unwrap(), ["order"]);
        assert_eq!(Recorded::new([refused(), refused()]).err().unwrap().class(), "Internal");
    }

    #[test]
    fn the_way_with_the_shorter_median_stays() {
        // The last time is taken first: what is done once, at the first launch, decides nothing.
        let slow_at_first = ("lanes", [10, 11, 9, 10, 5000]);
        for (other, faster) in [([12, 13, 11, 12, 12], "lanes"), ([8, 9, 8, 200, 8], "order")] {
            let (mut recorded, log) = ways([("order", other), slow_at_first]);
            for _ in 0..2 * TRIALS + 3 {
                recorded.launch().unwrap();
            }
            let log = log.lock().unwrap();
            assert!(
                log[..2 * TRIALS].chunks(2).all(|pair| pair == ["order", "lanes"]),
                "{log:?}"
            );
            assert_eq!(log[2 * TRIALS..], [faster; 3]);
        }
    }

    #[test]
    fn one_way_is_never_timed() {
        let (mut recorded, log) = ways([("order", [0; TRIALS]), ("lanes", [0; TRIALS])]);
        recorded.ways.truncate(1);
        for _ in 0..3 {
            recorded.launch().unwrap();
        }
        assert!(recorded.ways[0].times.is_empty());
        assert_eq!(*log.lock().unwrap(), ["order"; 3]);
    }
}

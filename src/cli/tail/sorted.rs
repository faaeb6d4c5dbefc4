//! Lines in the order of the log's time, over all partitions.

/// The most that is kept: lines, and for each its place and what the list costs. A
/// few million short lines; fits a small machine.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// What a line costs beside its text, at most.
const LINE_COST: usize = 2 * size_of::<Line>() + 16;

/// What is kept is at its bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "--sorted keeps at most {} MiB in memory, and there is more: ask for fewer events (--from, \
     --type, --player, --guild), or leave --sorted out; nothing was printed",
    .0 / (1024 * 1024)
)]
pub struct TooMany(usize);

/// When the log took an event (seconds and nanoseconds), its partition and its offset.
pub type Place = (i64, i32, i32, i64);

type Line = (Place, Box<str>);

/// Lines to be sorted.
#[derive(Debug)]
pub struct Sorted {
    lines: Vec<Line>,
    bytes: usize,
    max_bytes: usize,
}

impl Default for Sorted {
    fn default() -> Self {
        Self { lines: Vec::new(), bytes: 0, max_bytes: MAX_BYTES }
    }
}

impl Sorted {
    /// Keeps one line.
    pub fn push(&mut self, place: Place, line: String) -> Result<(), TooMany> {
        self.bytes += line.len() + LINE_COST;
        if self.bytes > self.max_bytes {
            return Err(TooMany(self.max_bytes));
        }
        self.lines.push((place, line.into()));
        Ok(())
    }

    /// All lines: by time, then partition, then offset.
    pub fn into_lines(mut self) -> impl Iterator<Item = Box<str>> {
        self.lines.sort_unstable_by_key(|(place, _)| *place);
        self.lines.into_iter().map(|(_, line)| line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_by_time_then_partition_then_offset() {
        let mut sorted = Sorted::default();
        for place in [(2, 0, 0, 7), (1, 5, 1, 3), (1, 5, 0, 10), (1, 5, 0, 9), (1, 4, 9, 1)] {
            sorted.push(place, format!("{}@{}", place.2, place.3)).unwrap();
        }
        let lines: Vec<_> = sorted.into_lines().collect();
        assert_eq!(lines, ["9@1", "0@9", "0@10", "1@3", "0@7"].map(Box::from));
    }

    #[test]
    fn more_than_the_bound_is_refused() {
        let mut sorted = Sorted { max_bytes: 10 * (LINE_COST + 4), ..Default::default() };
        for offset in 0..10 {
            sorted.push((0, 0, 0, offset), "four".to_owned()).unwrap();
        }
        assert!(sorted.push((0, 0, 0, 10), String::new()).is_err());
    }
}

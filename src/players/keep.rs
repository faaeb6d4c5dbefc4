//! When snapshots are written and read.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::history::History;
use super::snapshot::{Head, Reader, SnapshotError, Writer, set_aside};
use super::{Applied, Players, Remembered, Shard};
use crate::event_log::{Bounds, LogId, Partition, Position, partition_of_key};

/// How many players are written down under one lock of their shard.
const PART_PLAYERS: usize = 256;

/// The settings of the snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// The file. Another one beside it, with ".new" at its end, is made while it is written, and
    /// one that is not used is kept with ".refused" at its end.
    pub file: PathBuf,
    /// How often it is written, while something changes.
    pub interval: Duration,
}

impl Players {
    /// Begins with the log of `bounds`: forgets everything, takes in the snapshot if there is
    /// one that fits, and returns where the log has to be read on. That is where requests begin
    /// to be remembered, also where players are known further: they take no event twice.
    /// `horizon` is the place of the oldest moment of which requests are remembered.
    pub async fn begin_at(&self, bounds: &Bounds, horizon: &Position) -> Position {
        let (players, limits) = (self.clone(), bounds.clone());
        // Reading a large one takes seconds.
        let loaded = tokio::task::spawn_blocking(move || players.load(&limits)).await;
        let position = loaded.ok().flatten().unwrap_or_else(|| {
            self.forget(History::from(&bounds.start));
            bounds.start.clone()
        });
        // No more of a long log than can be remembered of it.
        let most = self.0.options.request_max_entries / bounds.end.len().max(1);
        let (mut from, mut unbegun) = (Position::default(), Vec::new());
        for (partition, end) in bounds.end.iter() {
            let (start, horizon) = (bounds.start.get(partition), horizon.get(partition));
            let remembered = horizon.max(end.saturating_sub(most as u64));
            let first = position.get(partition).min(remembered).max(start);
            // Where retention has been at work, the horizon may be gone.
            if first > 0 && (first > horizon || horizon <= start) {
                unbegun.push(partition);
            }
            from.set(partition, first);
        }
        self.begin(bounds.log, from.clone(), bounds.end.clone(), unbegun);
        from
    }

    /// Writes the snapshot every interval when something has changed, for as long as it is
    /// polled; never ends. Nothing is written where none is wanted.
    pub async fn keep_snapshot(&self) {
        let Some(options) = &self.0.options.snapshot else { return std::future::pending().await };
        loop {
            tokio::time::sleep(options.interval).await;
            self.save().await;
        }
    }

    /// Writes the snapshot now, if one is wanted and something has changed. Trouble is logged,
    /// counted, and tried again the next time. Dropping the future gives it up: the file stays
    /// as it was.
    pub async fn save(&self) {
        let players = self.clone();
        let given_up = CancellationToken::new();
        let _unless_awaited = given_up.clone().drop_guard();
        let _ = tokio::task::spawn_blocking(move || players.save_now(&given_up)).await;
    }

    pub(super) fn save_now(&self, given_up: &CancellationToken) {
        let shared = &*self.0;
        let Some(options) = &shared.options.snapshot else { return };
        // One at a time: what is written beside the file has one name.
        let mut saved = shared.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let times_begun = self.progress().begun;
        // Before anybody is written down, so that nobody is less far. What has not been read up
        // to where the log was at the start is no news.
        let Some(applied) = self.applied() else { return };
        if saved.as_ref() == Some(&applied) || !self.has_caught_up() {
            return;
        }
        let begun = Instant::now();
        let is_void = || given_up.is_cancelled() || self.progress().begun != times_begun;
        match self.write(&options.file, &applied, is_void) {
            Ok(Some(players)) => {
                tracing::info!(players, took = ?begun.elapsed(), "the snapshot is written");
                *saved = Some(applied);
            }
            Ok(None) => {}
            Err(error) => {
                shared.metrics.snapshot_failures.inc();
                let file = options.file.display();
                tracing::warn!(%error, %file, "the snapshot of players cannot be written");
            }
        }
    }

    /// Writes everybody down, unless that becomes void: when it is given up, and when there was
    /// a new beginning, as whoever was written down after it is of another log.
    fn write(
        &self,
        file: &Path,
        applied: &(LogId, Position),
        is_void: impl Fn() -> bool,
    ) -> std::io::Result<Option<usize>> {
        let (log, position) = applied;
        let head = Head {
            log: log.0.as_bytes().to_vec(),
            key_partitions: self.0.key_partitions,
            position: position.iter().map(|(_, offset)| offset).collect(),
            history: self.progress().history.starts(),
        };
        let mut writer = Writer::create(file, &head)?;
        let mut players = 0;
        for shard in &self.0.shards {
            let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
            let ids = lock().people.ids();
            players += ids.len();
            for ids in ids.chunks(PART_PLAYERS) {
                if is_void() {
                    writer.discard();
                    return Ok(None);
                }
                let part = lock().people.write_down(ids);
                writer.part(&part)?;
            }
        }
        if is_void() {
            writer.discard();
            return Ok(None);
        }
        writer.finish()?;
        Ok(Some(players))
    }

    /// Takes in the snapshot; returns its position when it was used.
    fn load(&self, bounds: &Bounds) -> Option<Position> {
        let options = self.0.options.snapshot.as_ref()?;
        let begun = Instant::now();
        let file = options.file.display();
        match self.read(&options.file, bounds) {
            Ok(None) => None,
            Ok(Some(position)) => {
                let players = self.0.metrics.known.get();
                tracing::info!(players, took = ?begun.elapsed(), "the snapshot is read");
                for (partition, start) in bounds.start.iter() {
                    let missed = start.saturating_sub(position.get(partition));
                    if missed > 0 {
                        self.progress().history.interrupt(partition);
                        tracing::warn!(
                            partition,
                            missed,
                            "retention has removed events behind the snapshot of players: what \
                             they changed is not known"
                        );
                    }
                }
                let saved = Some((bounds.log, position.clone()));
                *self.0.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
                Some(position)
            }
            Err(error) => {
                let aside = match error {
                    // It may be well, and another time readable.
                    SnapshotError::Io(_) => None,
                    _ => set_aside(&options.file).ok(),
                };
                let aside = aside.unwrap_or_else(|| options.file.clone());
                tracing::warn!(
                    %error,
                    %file,
                    kept = %aside.display(),
                    "the snapshot of players is not used; all of the log is read instead"
                );
                None
            }
        }
    }

    fn read(&self, file: &Path, bounds: &Bounds) -> Result<Option<Position>, SnapshotError> {
        let Some((mut reader, head)) = Reader::open(file)? else { return Ok(None) };
        if head.log != bounds.log.0.as_bytes() {
            return Err(SnapshotError::Foreign("another log's identity"));
        }
        if head.key_partitions != self.0.key_partitions {
            return Err(SnapshotError::Foreign("players are spread over other partitions"));
        }
        let position = Position::from(head.position);
        const AHEAD: SnapshotError = SnapshotError::Foreign("it is ahead of the log's end");
        if !bounds.end.covers(&position) {
            return Err(AHEAD);
        }
        self.forget(History::read_back(head.history));
        while let Some(part) = reader.next()? {
            for entry in &part.players {
                let key = entry.player_id.as_bytes();
                let partition = partition_of_key(key, self.0.key_partitions);
                if entry.next_offset > bounds.end.get(partition) {
                    return Err(AHEAD);
                }
                let shard = self.key(&entry.player_id).hash.shard();
                if !self.lock(shard).people.read_back(&part, entry) {
                    return Err(SnapshotError::Damaged("a player in it is none"));
                }
            }
        }
        Ok(Some(position))
    }

    /// Forgets everybody.
    pub(super) fn forget(&self, history: History) {
        let shared = &*self.0;
        {
            let mut progress = self.progress();
            progress.begun += 1;
            progress.history = history;
        }
        shared.ready.send_if_modified(|ready| std::mem::replace(ready, false));
        *self.remembered() = Remembered::default();
        shared.applied.store(None);
        for shard in &shared.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            *shard = Shard::new(&shared.options, &shared.guilds, &shared.metrics, &shared.hasher);
        }
        shared.guilds.clear();
        shared.metrics.known.set(0);
    }

    /// From here on what is known counts, once all up to `end` is applied.
    pub(super) fn begin(
        &self,
        log: LogId,
        position: Position,
        end: Position,
        unbegun: Vec<Partition>,
    ) {
        self.progress().end = end;
        *self.remembered() = Remembered { unbegun, since: None };
        for number in 0..self.0.shards.len() {
            self.lock(number).log = Some(log);
        }
        self.set_applied(Applied { log, position, is_ready: false });
    }
}

//! A reader of the log that tells events from duplicates.

use std::sync::Arc;

use uuid::Uuid;

use super::seen::{MORE, Seen};
use super::{REACH, Read, Verdict, scan};
use crate::event_log::{
    EventLog, LogId, LogReader, Offset, Partition, Position, ReadBatch, ReadError, ReadLimits,
};

/// How much is read at once of what lies before a reader's start. Of it the ids are kept.
const LOOK_BACK_LIMITS: ReadLimits = ReadLimits { records: 1000, bytes: 1 << 20 };

/// Reads the log from a position on, and says what each record is.
///
/// When a record's writer had not looked as far as to where this reader started (or what it had
/// passed it has forgotten since), a second reader of the log fetches the ids in between. That
/// costs what reading up to [`REACH`] records of each partition costs, and with Kafka another
/// consumer meanwhile; but readers that stay where they are need it once at the most, and
/// writers have looked up to almost their own place.
pub struct Reader {
    log: Arc<dyn EventLog>,
    id: LogId,
    inner: Box<dyn LogReader>,
    /// By partition.
    seen: Vec<Seen>,
    /// Behind what was returned.
    position: Position,
    /// What was read behind that, and cannot be judged yet.
    unjudged: Option<Unjudged>,
}

struct Unjudged {
    read: ReadBatch,
    /// As if no id came twice.
    verdicts: Vec<Verdict>,
    /// Of each record that is an event.
    questions: Vec<Question>,
}

/// Whether the id of the event at an offset is there already, at `need` or behind that.
struct Question {
    partition: Partition,
    offset: Offset,
    id: Uuid,
    need: Offset,
}

/// What has to be known of a partition: from which offset on.
type Wanted = Vec<(Partition, Offset)>;

impl Reader {
    /// As [`EventLog::open_reader`].
    pub async fn open(
        log: Arc<dyn EventLog>,
        id: LogId,
        from: Position,
    ) -> Result<Self, ReadError> {
        let inner = log.open_reader(id, from.clone()).await?;
        Ok(Self::new(log, id, inner, from))
    }

    /// As [`EventLog::open_tail`].
    pub async fn open_tail(
        log: Arc<dyn EventLog>,
        id: LogId,
        from: Position,
    ) -> Result<Self, ReadError> {
        let inner = log.open_tail(id, from.clone()).await?;
        Ok(Self::new(log, id, inner, from))
    }

    fn new(log: Arc<dyn EventLog>, id: LogId, inner: Box<dyn LogReader>, from: Position) -> Self {
        let seen = from.iter().map(|(_, offset)| Seen::new(offset)).collect();
        Self { log, id, inner, seen, position: from, unjudged: None }
    }

    /// As [`LogReader::next`]. Dropping the future loses nothing, nor does an error.
    pub async fn next(&mut self, limits: ReadLimits) -> Result<Read, ReadError> {
        if self.unjudged.is_none() {
            let read = self.inner.next(limits).await?;
            self.unjudged = Some(self.look_at(read));
        }
        let wanted = self.wanted();
        if !wanted.is_empty() {
            self.look_back(wanted).await?;
        }
        let unjudged = self.unjudged.take().expect("it was put there above");
        Ok(self.judge(unjudged))
    }

    /// As [`LogReader::seek`].
    pub fn seek(&mut self, log: LogId, from: Position) {
        self.inner.seek(log, from.clone());
        self.id = log;
        self.seen = from.iter().map(|(_, offset)| Seen::new(offset)).collect();
        self.position = from;
        self.unjudged = None;
    }

    /// Where the next read begins.
    pub fn position(&self) -> &Position {
        &self.position
    }

    fn look_at(&mut self, read: ReadBatch) -> Unjudged {
        let mut verdicts = Vec::with_capacity(read.records.len());
        let mut questions = Vec::with_capacity(read.records.len());
        while self.seen.len() < read.position.len() {
            // A partition that was not named is read from its start.
            self.seen.push(Seen::new(0));
        }
        for trimmed in &read.trimmed {
            // Nothing lies before it any more.
            self.seen[trimmed.partition as usize].add_older(0, Vec::new());
        }
        for record in &read.records {
            let (partition, offset) = (record.partition, record.offset);
            match scan::event(&record.value) {
                Ok(event) => {
                    let need = event.checked_through.max(offset.saturating_sub(REACH)).min(offset);
                    self.seen[partition as usize].widen(need, offset);
                    questions.push(Question { partition, offset, id: event.id, need });
                    verdicts.push(Verdict::Event(event.origin));
                }
                Err(_) => verdicts.push(Verdict::Foreign),
            }
        }
        Unjudged { read, verdicts, questions }
    }

    /// What has to be known before what was read can be judged.
    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::new();
        for question in self.unjudged.iter().flat_map(|unjudged| &unjudged.questions) {
            let Question { partition, offset, need, .. } = *question;
            if need == offset || need >= self.seen[partition as usize].from() {
                continue;
            }
            let need = need.saturating_sub(MORE).max(offset.saturating_sub(REACH));
            match wanted.iter_mut().find(|(of, _)| *of == partition) {
                Some((_, from)) => *from = need.min(*from),
                None => wanted.push((partition, need)),
            }
        }
        wanted
    }

    /// Fetches the ids that lie before what is known. Where it fails, nothing has changed.
    async fn look_back(&mut self, wanted: Wanted) -> Result<(), ReadError> {
        // Of the other partitions there is nothing to read from there on, or little.
        let mut from = self.inner.position().clone();
        for (partition, offset) in &wanted {
            from.set(*partition, *offset);
        }
        let mut older = vec![Vec::new(); wanted.len()];
        match self.read_older(&wanted, from, &mut older).await {
            // What cannot be read any more decides nothing, as what was removed.
            Err(ReadError::Damaged(why)) => {
                tracing::error!(%why, "duplicates of damaged records cannot be recognised");
            }
            read => read?,
        }
        for ((partition, from), older) in wanted.into_iter().zip(older) {
            self.seen[partition as usize].add_older(from, older);
        }
        Ok(())
    }

    async fn read_older(
        // A reader may be moved to another thread, but not be shared with one.
        &mut self,
        wanted: &Wanted,
        from: Position,
        older: &mut [Vec<(Offset, Uuid)>],
    ) -> Result<(), ReadError> {
        let end = |partition: Partition| self.seen[partition as usize].from();
        let mut reader = self.log.open_reader(self.id, from).await?;
        while wanted.iter().any(|(of, _)| reader.position().get(*of) < end(*of)) {
            for record in reader.next(LOOK_BACK_LIMITS).await?.records {
                let index = wanted.iter().position(|(of, _)| *of == record.partition);
                let Some(index) = index.filter(|_| record.offset < end(record.partition)) else {
                    continue;
                };
                if let Ok(event) = scan::event(&record.value) {
                    older[index].push((record.offset, event.id));
                }
            }
            // A back end may have all of it at hand, and others wait for this thread.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn judge(&mut self, unjudged: Unjudged) -> Read {
        let Unjudged { read, mut verdicts, questions } = unjudged;
        let events = verdicts.iter_mut().filter(|verdict| verdict.is_event());
        for (verdict, Question { partition, offset, id, need }) in events.zip(questions) {
            if self.seen[partition as usize].pass(offset, id, need) {
                *verdict = Verdict::Duplicate;
            }
        }
        let ReadBatch { records, trimmed, position } = read;
        self.position.clone_from(&position);
        Read { records, verdicts, trimmed, position }
    }
}

//! Log events of the code under test.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Collects the events of this thread until it is dropped: of a plain test, or of a `#[tokio::test]` with the
/// usual single thread and the tasks it spawns.
pub struct Capture {
    events: Events,
    _guard: DefaultGuard,
}

type Events = Arc<Mutex<Vec<CapturedEvent>>>;

/// One event.
#[derive(Clone, Debug)]
pub struct CapturedEvent {
    /// Its level.
    pub level: Level,
    /// Its target, usually the module.
    pub target: String,
    /// Its fields as text; the text of the event itself is `message`.
    pub fields: BTreeMap<String, String>,
}

impl CapturedEvent {
    /// A field as text; empty when it is missing.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

impl Capture {
    /// Starts collecting on this thread.
    pub fn start() -> Self {
        // Without a global subscriber, an event that a thread without one reaches first is switched off for
        // all threads (tracing caches who is interested). Another one may be there already: as good.
        static GLOBAL: Once = Once::new();
        GLOBAL.call_once(|| {
            let _ = tracing::subscriber::set_global_default(Registry::default());
        });
        let events = Events::default();
        let subscriber = Registry::default().with(Collect(Arc::clone(&events)));
        Self {
            events,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<CapturedEvent> {
        self.events.lock().unwrap().clone()
    }

    /// The events whose field `event` has this value (the hops of a desire and a report are named so).
    pub fn named(&self, event: &str) -> Vec<CapturedEvent> {
        let mut events = self.events();
        events.retain(|captured| captured.field("event") == event);
        events
    }

    /// Everything as text, one event a line, to search for what must not be logged.
    pub fn text(&self) -> String {
        self.events()
            .iter()
            .map(|event| format!("{event}\n"))
            .collect()
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Display for CapturedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.level,
            self.target,
            self.field("message")
        )?;
        for (name, value) in self.fields.iter().filter(|(name, _)| *name != "message") {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

struct Collect(Events);

impl<S: Subscriber> Layer<S> for Collect {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().push(CapturedEvent {
            level: *event.metadata().level(),
            target: event.metadata().target().to_owned(),
            fields: fields.0,
        });
    }
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_by_name_and_text() {
        let capture = Capture::start();
        tracing::info!(event = "desire.applied", generation = 7, "applied");
        tracing::debug!("something else");
        assert_eq!(capture.events().len(), 2);
        let applied = capture.named("desire.applied");
        assert_eq!(applied[0].field("generation"), "7");
        assert_eq!(applied[0].field("message"), "applied");
        assert!(capture.text().contains("something else"));
    }
}

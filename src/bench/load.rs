//! Many streams on few threads: connects them, lets them send in rounds, and gathers what they did.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidegate_agent::connect::Connector;
use tidegate_wire::{Hello, Totals};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::corpus::Corpus;
use super::stream::{Common, Order, Sent, Stream};
use crate::failure::Failure;

/// Connections that are opened at once.
const OPENING_MAX: usize = 32;
/// A round begins so long after it is ordered, so that all streams have heard of it.
const LEAD: Duration = Duration::from_millis(5);
/// Longest latency that is told apart: ten minutes, in microseconds.
const LATENCY_MAX: u64 = 600_000_000;
/// Digits that are kept of a latency.
const DIGITS: u8 = 3;

/// One stream to be: where it connects, and as what.
pub(crate) struct Seat {
    pub connector: Arc<dyn Connector>,
    pub hello: Hello,
}

/// How the load is sent.
pub(crate) struct LoadSettings {
    pub corpus: Arc<Corpus>,
    pub disks: usize,
    pub threads: usize,
    /// Bytes a second of all streams together; `None`: as fast as the server takes them.
    pub bytes_per_second: Option<u64>,
}

/// A load, connected.
pub(super) struct Load {
    streams: usize,
    orders: watch::Sender<Order>,
    done: mpsc::Receiver<io::Result<Sent>>,
    latencies: Vec<Arc<Mutex<Histogram<u64>>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What all streams did in one round.
pub(super) struct Sum {
    pub sent: Sent,
    /// From the round's begin until all of it was committed.
    pub seconds: f64,
}

impl Load {
    /// Connects all streams.
    ///
    /// # Errors
    /// When one can't be connected or is refused.
    pub(super) async fn connect(
        seats: Vec<Seat>,
        settings: &LoadSettings,
    ) -> Result<Self, Failure> {
        let streams = seats.len();
        let interval = settings.bytes_per_second.map(|rate| interval(rate, streams, settings));
        let common =
            Common { corpus: settings.corpus.clone(), streams, disks: settings.disks, interval };
        let (orders, listen) = watch::channel(Order::Wait);
        // Each stream has at most one thing to tell.
        let (tell, done) = mpsc::channel(2 * streams);
        let mut parts: Vec<Vec<(usize, Seat)>> = Vec::new();
        parts.resize_with(settings.threads.clamp(1, streams), Vec::new);
        let count = parts.len();
        for (number, seat) in seats.into_iter().enumerate() {
            parts[number % count].push((number, seat));
        }
        let mut load = Self { streams, orders, done, latencies: Vec::new(), threads: Vec::new() };
        for (number, part) in parts.into_iter().enumerate() {
            let latencies = Arc::new(Mutex::new(histogram()));
            load.latencies.push(latencies.clone());
            let work = work(part, common.clone(), latencies, listen.clone(), tell.clone());
            let thread = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                // Without a runtime nobody tells that it is ready, and that is found out below.
                if let Ok(runtime) = runtime {
                    runtime.block_on(work);
                }
            };
            let builder =
                std::thread::Builder::new().name(format!("{}{number}", super::LOAD_THREAD));
            let thread = builder.spawn(thread);
            load.threads.push(thread.map_err(|error| {
                Failure::failed(format!("can't start a thread for the load: {error}"))
            })?);
        }
        drop(tell);
        load.gather().await?;
        Ok(load)
    }

    /// Lets all streams send for so long, and waits until what they sent is committed.
    pub(super) async fn round(&mut self, length: Duration) -> Result<Sum, Failure> {
        let begin = Instant::now() + LEAD;
        self.orders.send_replace(Order::Send { begin, until: begin + length });
        let sent = self.gather().await?;
        Ok(Sum { sent, seconds: begin.elapsed().as_secs_f64() })
    }

    /// Takes out the latencies since the last call.
    pub(super) fn take_latencies(&self) -> Histogram<u64> {
        let mut all = histogram();
        for part in &self.latencies {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            // Of the same bounds, so it fits.
            let _ = all.add(&*part);
            part.reset();
        }
        all
    }

    /// Says goodbye for all streams.
    pub(super) async fn leave(self) {
        self.orders.send_replace(Order::Quit);
        let threads = self.threads;
        let joined = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(joined).await;
    }

    /// Waits for a word of each stream.
    async fn gather(&mut self) -> Result<Sent, Failure> {
        let mut sum = Sent::default();
        for _ in 0..self.streams {
            let told = self.done.recv().await;
            let told = told.ok_or_else(|| Failure::failed("the load's threads have ended"))?;
            let sent = told.map_err(|error| Failure::failed(format!("a stream broke: {error}")))?;
            sum.writes += sent.writes;
            sum.bytes += sent.bytes;
            sum.payload_bytes += sent.payload_bytes;
            add(&mut sum.totals, &sent.totals);
        }
        Ok(sum)
    }
}

/// One thread's streams, from their connection to their end.
async fn work(
    seats: Vec<(usize, Seat)>,
    common: Common,
    latencies: Arc<Mutex<Histogram<u64>>>,
    orders: watch::Receiver<Order>,
    tell: mpsc::Sender<io::Result<Sent>>,
) {
    let opening = Arc::new(Semaphore::new(OPENING_MAX));
    let mut streams = JoinSet::new();
    for (number, seat) in seats {
        let (common, latencies, orders) = (common.clone(), latencies.clone(), orders.clone());
        let (tell, opening) = (tell.clone(), opening.clone());
        streams.spawn(async move {
            let stream = {
                let _turn = opening.acquire().await;
                open(number, seat, common, latencies).await
            };
            let ended = match stream {
                Ok(stream) => match tell.send(Ok(Sent::default())).await {
                    Ok(()) => stream.run(orders, tell.clone()).await,
                    Err(_) => return,
                },
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                let _ = tell.send(Err(error)).await;
            }
        });
    }
    while streams.join_next().await.is_some() {}
}

async fn open(
    number: usize,
    seat: Seat,
    common: Common,
    latencies: Arc<Mutex<Histogram<u64>>>,
) -> io::Result<Stream> {
    let connection = seat.connector.connect().await.map_err(io::Error::other)?;
    Stream::open(number, common, connection, seat.hello, latencies).await
}

/// Between two writes of one stream, so that all together have the rate.
fn interval(bytes_per_second: u64, streams: usize, settings: &LoadSettings) -> Duration {
    let bytes = settings.corpus.record_bytes() as u128 * streams as u128;
    let nanos = bytes * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).max(1))
}

pub(super) fn histogram() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS);
    histogram.expect("the bounds are constants that hdrhistogram accepts")
}

fn add(sum: &mut Totals, more: &Totals) {
    sum.zero_bytes += more.zero_bytes;
    sum.deduplicated_bytes += more.deduplicated_bytes;
    sum.kept_bytes += more.kept_bytes;
    sum.stored_bytes += more.stored_bytes;
}

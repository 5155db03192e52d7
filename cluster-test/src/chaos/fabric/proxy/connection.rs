//! One proxied connection: two pumps that do as the pair's conduct says, and change with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::conduct::{Conduct, Flow, Pace};

/// Largest piece that is read at once.
const PIECE: usize = 16 << 10;
/// Bytes that one direction keeps at most while it holds or delays: more than a link's window of appends.
const KEPT_MAX: usize = 48 << 20;
/// Pieces that one direction keeps at most, so that tiny ones are bounded too.
const PIECES_MAX: usize = 1 << 16;

/// Which direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// It moved, or vanished as it should; more may come.
    On,
    /// This direction has ended.
    Ended,
    /// Bytes would now follow a hole: the whole connection must be reset.
    Holed,
}

/// What the reading half hands to the writing half.
enum Piece {
    Bytes { read_at: Instant, bytes: Bytes, _room: tokio::sync::OwnedSemaphorePermit },
    Finished,
    Broken,
}

/// Carries a connection until both directions have ended or it is reset.
pub(super) async fn carry(
    dialler: TcpStream,
    target: TcpStream,
    conduct: watch::Receiver<Conduct>,
    chance: u64,
) {
    // Small frames must not wait for each other inside the proxy.
    let _ = dialler.set_nodelay(true);
    let _ = target.set_nodelay(true);
    let (from_dialler, to_dialler) = dialler.into_split();
    let (from_target, to_target) = target.into_split();
    let holed = Notify::new();
    let mut there = Pump::new(Way::There, to_target, conduct.clone(), chance);
    let mut back = Pump::new(Way::Back, to_dialler, conduct.clone(), chance ^ 1);
    // A direction that breaks ends alone: what the other one still holds is delivered when it is let go.
    let pumps = async {
        tokio::join!(there.run(from_dialler, &holed), back.run(from_target, &holed));
    };
    tokio::select! {
        () = pumps => return,
        () = must_reset(conduct) => {}
        () = holed.notified() => {}
    }
    there.reset();
    back.reset();
}

/// Returns when the pair's connections are to be reset, or the proxy is taken down.
async fn must_reset(mut conduct: watch::Receiver<Conduct>) {
    // An error means that the proxy is gone, and its connections go with it.
    let _ = conduct.wait_for(|conduct| conduct.reset).await;
}

struct Pump {
    way: Way,
    /// `None` once this direction was reset.
    out: Option<OwnedWriteHalf>,
    conduct: watch::Receiver<Conduct>,
    chance: StdRng,
    /// Bytes of this direction were swallowed.
    holed: bool,
    closed: bool,
    /// Pieces may not overtake each other, whatever the jitter says.
    not_before: Instant,
}

impl Pump {
    fn new(way: Way, out: OwnedWriteHalf, conduct: watch::Receiver<Conduct>, chance: u64) -> Self {
        let chance = StdRng::seed_from_u64(chance);
        Self { way, out: Some(out), conduct, chance, holed: false, closed: false, not_before: Instant::now() }
    }

    async fn run(&mut self, from: OwnedReadHalf, holed: &Notify) {
        let (pieces, kept) = mpsc::channel(PIECES_MAX);
        tokio::join!(read(from, pieces), self.write(kept, holed));
    }

    /// The peer of this half reads a reset instead of an orderly end.
    fn reset(&mut self) {
        if let Some(out) = self.out.take() {
            let stream: &TcpStream = out.as_ref();
            // A socket that is closed already needs no reset.
            let _ = stream.set_zero_linger();
            // Dropped instead, the half would send an orderly end first.
            out.forget();
        }
    }

    async fn write(&mut self, mut kept: mpsc::Receiver<Piece>, holed: &Notify) {
        loop {
            let piece = tokio::select! {
                piece = kept.recv() => piece,
                () = closing(self.way, self.conduct.clone()), if !self.closed => {
                    self.close().await;
                    continue;
                }
            };
            let moved = match &piece {
                Some(Piece::Bytes { read_at, bytes, .. }) => self.pass(*read_at, bytes).await,
                Some(Piece::Finished | Piece::Broken) | None => self.end(piece).await,
            };
            match moved {
                Moved::On => {}
                Moved::Ended => return,
                Moved::Holed => return holed.notify_one(),
            }
        }
    }

    /// Tells the receiver how the sender ended, once the flow lets it.
    async fn end(&mut self, piece: Option<Piece>) -> Moved {
        let way = self.way;
        let passes = |conduct: &Conduct| matches!(flow(conduct, way), Flow::Pass(_) | Flow::Close);
        // An error means that the proxy is taken down, which ends the connection too.
        let _ = self.conduct.wait_for(passes).await;
        if self.holed && !self.closed {
            return Moved::Holed;
        }
        match piece {
            Some(Piece::Finished) => self.close().await,
            Some(Piece::Bytes { .. } | Piece::Broken) | None => self.reset(),
        }
        Moved::Ended
    }

    async fn close(&mut self) {
        self.closed = true;
        if let Some(out) = &mut self.out {
            // The receiver may have gone; then it needs no end of stream.
            let _ = out.shutdown().await;
        }
    }

    /// Waits until what comes next may move, and says at which pace; `None` if it is to vanish.
    async fn passing(&mut self) -> Option<Pace> {
        let way = self.way;
        let moves = |conduct: &Conduct| flow(conduct, way) != Flow::Hold;
        let Ok(now) = self.conduct.wait_for(moves).await.map(|now| flow(&now, way)) else {
            return Some(Pace::default());
        };
        match now {
            Flow::Pass(pace) => Some(pace),
            Flow::Hold | Flow::Swallow | Flow::Close => None,
        }
    }

    /// Moves one piece as the conduct says.
    async fn pass(&mut self, read_at: Instant, bytes: &[u8]) -> Moved {
        let Some(pace) = self.passing().await else {
            self.holed = true;
            return Moved::On;
        };
        if self.closed {
            return Moved::On;
        }
        if self.holed {
            return Moved::Holed;
        }
        let jitter = pace.jitter.mul_f64(self.chance.random::<f64>());
        self.not_before = self.not_before.max(read_at + pace.delay + jitter);
        tokio::time::sleep_until(self.not_before).await;
        if let Some(rate) = pace.bytes_per_second {
            let takes = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX)) / f64::from(rate.max(1));
            tokio::time::sleep(Duration::from_secs_f64(takes)).await;
        }
        // A hold that began while this piece was on its way catches it too.
        if self.passing().await.is_none() {
            self.holed = true;
            return Moved::On;
        }
        let Some(out) = &mut self.out else { return Moved::Ended };
        match out.write_all(bytes).await {
            Ok(()) => Moved::On,
            Err(_) => Moved::Ended,
        }
    }
}

fn flow(conduct: &Conduct, way: Way) -> Flow {
    match way {
        Way::There => conduct.there,
        Way::Back => conduct.back,
    }
}

/// Returns when a direction is to be half-closed.
async fn closing(way: Way, mut conduct: watch::Receiver<Conduct>) {
    if conduct.wait_for(|conduct| flow(conduct, way) == Flow::Close).await.is_err() {
        // The proxy is gone; `must_reset` ends the connection.
        std::future::pending::<()>().await;
    }
}

/// Reads until the sender ends, as far as there is room for what it sends.
async fn read(mut from: OwnedReadHalf, pieces: mpsc::Sender<Piece>) {
    let room = Arc::new(Semaphore::new(KEPT_MAX));
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        let piece = match from.read_buf(&mut buffer).await {
            Ok(0) => Piece::Finished,
            Err(_) => Piece::Broken,
            Ok(_) => {
                let bytes = buffer.split().freeze();
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let Ok(room) = room.clone().acquire_many_owned(len).await else { return };
                Piece::Bytes { read_at: Instant::now(), bytes, _room: room }
            }
        };
        let last = !matches!(piece, Piece::Bytes { .. });
        if pieces.send(piece).await.is_err() || last {
            return;
        }
    }
}

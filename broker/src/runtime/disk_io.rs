//! Threads for blocking disk work.

use std::sync::Arc;

use disk::{Io, Submit};

/// tokio's pool of blocking threads. The handle is kept, because the WAL's own thread submits work too.
struct BlockingThreads(tokio::runtime::Handle);

impl Submit for BlockingThreads {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        // The job reports its own end; the handle has nothing to add.
        drop(self.0.spawn_blocking(job));
    }
}

/// The production way to the disk: jobs run on the blocking threads of the runtime that this is called in. The result
/// may be used from any thread.
///
/// # Panics
/// Outside a tokio runtime.
#[must_use]
pub fn disk_io() -> Io {
    Io::new(Arc::new(BlockingThreads(tokio::runtime::Handle::current())))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn work_runs_on_another_thread() {
        let here = std::thread::current().id();
        assert_ne!(super::disk_io().run(|| std::thread::current().id()).await, here);
    }

    #[tokio::test]
    async fn a_thread_outside_the_runtime_may_submit_work() {
        let io = super::disk_io();
        let (done, result) = tokio::sync::oneshot::channel();
        let outside = std::thread::spawn(move || {
            // The job is submitted at the first poll, which happens here.
            let work = std::pin::pin!(io.run(move || done.send(7)));
            let mut here = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = std::future::Future::poll(work, &mut here);
        });
        outside.join().unwrap();
        assert_eq!(result.await, Ok(7));
    }
}

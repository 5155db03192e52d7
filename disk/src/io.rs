//! How async code calls the synchronous disk.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use futures::channel::oneshot;

/// Something that runs blocking jobs: threads in production, the calling task in simulation.
pub trait Submit: Send + Sync {
    /// Runs `job`, soon and once. A bounded pool may make the caller's job wait in its queue; it must not drop jobs
    /// while the runtime lives.
    fn submit(&self, job: Box<dyn FnOnce() + Send>);
}

/// Cheap handle by which async code runs blocking disk work.
#[derive(Clone)]
pub struct Io {
    submit: Option<Arc<dyn Submit>>,
}

impl Io {
    /// Runs jobs through `submit`.
    #[must_use]
    pub fn new(submit: Arc<dyn Submit>) -> Self {
        Self { submit: Some(submit) }
    }

    /// Runs jobs at once in the calling task: for tests and for a simulation without disk latency.
    #[must_use]
    pub fn inline() -> Self {
        Self { submit: None }
    }

    /// Runs `work` and waits for its result. A panic in `work` continues in the caller.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop work that was submitted; its result is discarded.
    pub async fn run<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let Some(submit) = &self.submit else { return work() };
        let (done, result) = oneshot::channel();
        submit.submit(Box::new(move || {
            // The receiver is gone when the caller was cancelled: then nobody wants the result.
            let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        }));
        match result.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            // The pool dropped the job unrun, which it does only while the runtime goes down and drops this task too.
            Err(oneshot::Canceled) => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.submit.is_some() { "Io(pool)" } else { "Io(inline)" })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread::{self, Thread};

    use super::*;

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => return value,
                Poll::Pending => thread::park(),
            }
        }
    }

    struct Threads;

    impl Submit for Threads {
        fn submit(&self, job: Box<dyn FnOnce() + Send>) {
            thread::spawn(job);
        }
    }

    #[test]
    fn result_comes_back_from_a_thread_and_from_inline() {
        assert_eq!(block_on(Io::inline().run(|| 7)), 7);
        assert_eq!(block_on(Io::new(Arc::new(Threads)).run(|| 8)), 8);
    }

    #[test]
    #[should_panic(expected = "bad block")]
    fn panic_of_the_work_reaches_the_caller() {
        block_on(Io::new(Arc::new(Threads)).run(|| panic!("bad block")));
    }
}

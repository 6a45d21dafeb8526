//! Mailboxes: how work and news cross from one core to another.
//!
//! A mailbox is a bounded queue with a name; whoever reads it sleeps as a task and is woken by the
//! next message, from whichever thread. Several readers may share one (units go to any idle core):
//! each message wakes one of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam::queue::ArrayQueue;

/// The mailbox holds as many messages as it was made for; the message comes back.
pub struct MailboxFull<T>(pub T);

/// A bounded queue between tasks on any threads.
pub struct Mailbox<T>(Arc<Inner<T>>);

struct Inner<T> {
    name: &'static str,
    queue: ArrayQueue<T>,
    high_water: AtomicUsize,
    readers: Mutex<VecDeque<Waker>>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Mailbox<T> {
    /// A mailbox for at most `capacity` messages.
    #[must_use]
    pub fn new(name: &'static str, capacity: usize) -> Self {
        Self(Arc::new(Inner {
            name,
            queue: ArrayQueue::new(capacity),
            high_water: AtomicUsize::new(0),
            readers: Mutex::default(),
        }))
    }

    /// What it is for.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The most messages that were in it at once.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.0.high_water.load(Ordering::Relaxed)
    }

    /// How many messages are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.queue.len()
    }

    /// Whether there is no message in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }

    /// Puts a message in and wakes one reader.
    ///
    /// # Errors
    /// [`MailboxFull`] gives the message back.
    pub fn post(&self, message: T) -> Result<(), MailboxFull<T>> {
        self.0.queue.push(message).map_err(MailboxFull)?;
        self.0.high_water.fetch_max(self.0.queue.len(), Ordering::Relaxed);
        let reader = self.readers().pop_front();
        if let Some(waker) = reader {
            waker.wake();
        }
        Ok(())
    }

    /// The next message, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.0.queue.pop()
    }

    /// The next message as soon as there is one.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<T> {
        if let Some(message) = self.0.queue.pop() {
            return Poll::Ready(message);
        }
        {
            let mut readers = self.readers();
            if !readers.iter().any(|waker| waker.will_wake(context.waker())) {
                readers.push_back(context.waker().clone());
            }
        }
        // A message that came between the look and the registration woke nobody: look again.
        match self.0.queue.pop() {
            Some(message) => {
                self.readers().retain(|waker| !waker.will_wake(context.waker()));
                Poll::Ready(message)
            }
            None => Poll::Pending,
        }
    }

    fn readers(&self) -> MutexGuard<'_, VecDeque<Waker>> {
        // A panic elsewhere can't leave the list half changed: each change is one call.
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_bounded_and_tells_its_high_water_mark() {
        let mailbox = Mailbox::new("test", 2);
        assert!(mailbox.post(1).is_ok() && mailbox.post(2).is_ok());
        assert_eq!(mailbox.post(3).map_err(|full| full.0), Err(3));
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(1), Some(2), None));
        assert_eq!(mailbox.high_water(), 2);
    }

    #[test]
    fn a_reader_on_another_thread_gets_every_message() {
        let mailbox = Mailbox::new("test", 4);
        let reader = {
            let mailbox = mailbox.clone();
            std::thread::spawn(move || {
                let thread = std::thread::current();
                let waker = Waker::from(Arc::new(Unpark(thread)));
                let mut context = Context::from_waker(&waker);
                let mut sum = 0;
                while sum < 500_500 {
                    match mailbox.poll_take(&mut context) {
                        Poll::Ready(message) => sum += message,
                        Poll::Pending => std::thread::park(),
                    }
                }
                sum
            })
        };
        for mut message in 1..=1000_u64 {
            while let Err(full) = mailbox.post(message) {
                message = full.0;
                std::thread::yield_now();
            }
        }
        assert_eq!(reader.join().unwrap(), 500_500);
    }

    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
}

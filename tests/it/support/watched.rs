//! A service whose liveness is asked all the while, whatever happens to it.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};

use super::{LIMIT, Service, service::client};

/// The service, with what was found. When the test lets go of it, it must have been alive all the time, and nothing in it may
/// have panicked.
pub(crate) struct Watched {
    service: Service,
    asking: JoinHandle<()>,
    /// Answers other than yes.
    otherwise: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    pub(crate) async fn start<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self::over(Service::start(&[], pairs).await).await
    }

    pub(crate) async fn over(service: Service) -> Self {
        assert_eq!(service.get("/healthz").await.status(), 200);
        let otherwise = Arc::<Mutex<Vec<String>>>::default();
        let (url, found) = (service.url("/healthz"), otherwise.clone());
        let asking = tokio::spawn(async move {
            let client = client();
            loop {
                let answer = client.get(&url).timeout(LIMIT).send().await;
                let other = match answer {
                    Ok(answer) if answer.status() == 200 => None,
                    Ok(answer) => Some(answer.status().to_string()),
                    Err(error) => Some(format!("{error:?}")),
                };
                found.lock().expect("no panic while held").extend(other);
                sleep(Duration::from_millis(100)).await;
            }
        });
        Self {
            service,
            asking,
            otherwise,
        }
    }
}

impl Deref for Watched {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.asking.abort();
        if std::thread::panicking() {
            println!("{}", self.service.log());
            return;
        }
        let otherwise = self.otherwise.lock().expect("no panic while held");
        assert!(otherwise.is_empty(), "/healthz: {otherwise:?}");
        let log = self.service.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

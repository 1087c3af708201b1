//! Measurements: the latest sample of each device, once or as they come.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use gpulease_proto::v1;
use tokio_stream::Stream;

use crate::{convert, error::Error};

/// One set of measurements of one device. What is unknown is `None`, never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// Which device, by UUID.
    pub device_uuid: String,
    /// When it was measured, for display.
    pub time: Option<SystemTime>,
    /// How old it was when the coordinator answered.
    pub age: Duration,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Memory that no holding lease explains, in bytes.
    pub memory_foreign_bytes: Option<u64>,
    /// Share of the last period in which the device worked, in thousandths.
    pub utilization_permille: Option<u32>,
    /// Temperature, in degrees Celsius.
    pub temperature_celsius: Option<i32>,
    /// Power draw, in thousandths of a watt.
    pub power_draw_milliwatts: Option<u64>,
}

impl From<v1::Sample> for Sample {
    fn from(wire: v1::Sample) -> Self {
        Self {
            device_uuid: wire.device_uuid,
            time: wire.time.and_then(convert::time),
            age: wire.age.and_then(convert::duration).unwrap_or_default(),
            memory_used_bytes: wire.memory_used_bytes,
            memory_foreign_bytes: wire.memory_foreign_bytes,
            utilization_permille: wire.utilization_permille,
            temperature_celsius: wire.temperature_celsius,
            power_draw_milliwatts: wire.power_draw_milliwatts,
        }
    }
}

/// Samples that are new since the last batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SampleBatch {
    /// At most one for each device.
    pub samples: Vec<Sample>,
    /// How many older samples were skipped since the last batch, because the reader was slow.
    pub skipped: u64,
}

impl From<v1::SubscribeResponse> for SampleBatch {
    fn from(wire: v1::SubscribeResponse) -> Self {
        Self {
            samples: wire.samples.into_iter().map(Sample::from).collect(),
            skipped: wire.skipped,
        }
    }
}

/// The stream of samples. It ends with its connection: samples are only ever the latest, so subscribing anew
/// misses nothing that matters.
#[derive(Debug)]
pub struct SampleStream {
    inner: tonic::Streaming<v1::SubscribeResponse>,
}

impl SampleStream {
    pub(crate) fn new(inner: tonic::Streaming<v1::SubscribeResponse>) -> Self {
        Self { inner }
    }
}

impl Stream for SampleStream {
    type Item = Result<SampleBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.inner)
            .poll_next(context)
            .map(|item| item.map(|result| result.map(SampleBatch::from).map_err(Error::from)))
    }
}

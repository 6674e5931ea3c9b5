//! Encodes single metrics.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

pub(super) type Label = (&'static str, String);
pub(super) type Series = (Vec<Label>, u64);

/// A page of metrics being encoded, with one call for each metric.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

impl Page<'_> {
    pub(super) fn info(
        &mut self,
        name: &str,
        help: &str,
        labels: &[Label],
    ) -> Result<(), fmt::Error> {
        self.0
            .encode_descriptor(name, help, None, MetricType::Info)?
            .encode_info(&labels)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
        self.0
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    /// A gauge with labels.
    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series>,
    ) -> Result<(), fmt::Error> {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series>,
    ) -> Result<(), fmt::Error> {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            if labels.is_empty() {
                encode_count(&mut metric, value)?;
            } else {
                encode_count(&mut metric.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}

fn encode_count(metric: &mut MetricEncoder<'_>, value: u64) -> Result<(), fmt::Error> {
    metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

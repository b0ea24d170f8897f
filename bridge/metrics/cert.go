package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// NewCertificate is a collector of when the first of our certificates expires. first is asked
// at each scrape; a zero time, of none, is not shown.
func NewCertificate(first func() time.Time) prometheus.Collector { return certificate(first) }

type certificate func() time.Time

var certExpiry = desc("certificate_expiry_timestamp_seconds", "When the first of the certificates that we show expires.")

// Describe names every metric.
func (c certificate) Describe(ch chan<- *prometheus.Desc) { ch <- certExpiry }

// Collect reads the files.
func (c certificate) Collect(ch chan<- prometheus.Metric) {
	if t := c(); !t.IsZero() {
		ch <- prometheus.MustNewConstMetric(certExpiry, prometheus.GaugeValue, float64(t.Unix()))
	}
}

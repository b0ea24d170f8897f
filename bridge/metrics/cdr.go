package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"sparkle/bridge/cdr"
)

var (
	cdrWritten  = desc("cdr_records_total", "Charging records that are safe on the disk.")
	cdrFailures = desc("cdr_write_failures_total", "Writes of charging records that the disk refused; they are tried again.")
	cdrDropped  = desc("cdr_records_dropped_total", "Charging records that no longer fitted into memory; the next start writes them from the database.")
	cdrWaiting  = desc("cdr_records_waiting", "Charging records that wait for the disk.")
)

// NewCDR is a collector of the charging records' writer.
func NewCDR(src interface{ Stats() cdr.Stats }) prometheus.Collector { return bills{src} }

type bills struct {
	src interface{ Stats() cdr.Stats }
}

// Describe names every metric.
func (b bills) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(b, ch) }

// Collect reads the counters.
func (b bills) Collect(ch chan<- prometheus.Metric) {
	s := b.src.Stats()
	for d, v := range map[*prometheus.Desc]uint64{cdrWritten: s.Written, cdrFailures: s.Failures, cdrDropped: s.Dropped} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	ch <- prometheus.MustNewConstMetric(cdrWaiting, prometheus.GaugeValue, float64(s.Waiting))
}

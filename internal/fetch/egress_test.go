package fetch

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// TestEgress is THREATS 29.
func TestEgress(t *testing.T) {
	g := NewWithT(t)
	everything, err := ParseEgress([]string{"0.0.0.0/0", "::/0"})
	g.Expect(err).NotTo(HaveOccurred())
	for address, want := range map[string]struct{ byDefault, whenAllowed bool }{
		"1.1.1.1":                   {true, true},
		"2606:4700::1111":           {true, true},
		"64:ff9b::101:101":          {true, true}, // NAT64 of 1.1.1.1
		"10.96.0.1":                 {false, true},
		"172.16.0.1":                {false, true},
		"172.32.0.1":                {true, true},
		"192.168.1.1":               {false, true},
		"100.64.0.1":                {false, true},
		"127.0.0.1":                 {false, true},
		"::1":                       {false, true},
		"fd00::1":                   {false, true},
		"198.18.0.1":                {false, true},
		"240.0.0.1":                 {false, true},
		"::ffff:10.0.0.1":           {false, true},
		"::10.0.0.1":                {false, true},
		"64:ff9b::a00:1":            {false, true}, // NAT64 of 10.0.0.1
		"2002:a00:1::":              {false, true}, // 6to4 of 10.0.0.1
		"2001:0:808:808::f5ff:fffe": {false, true}, // Teredo of 10.0.0.1
		"169.254.169.254":           {false, false},
		"::ffff:169.254.169.254":    {false, false},
		"64:ff9b::a9fe:a9fe":        {false, false},
		"2002:a9fe:a9fe::":          {false, false},
		"fd00:ec2::254":             {false, false},
		"100.100.100.200":           {false, false},
		"168.63.129.16":             {false, false},
		"fe80::1":                   {false, false},
		"0.0.0.0":                   {false, false},
		"::":                        {false, false},
		"224.0.0.1":                 {false, false},
		"ff02::1":                   {false, false},
		"255.255.255.255":           {false, false},
		"2001:0:a9fe:a9fe::1:1:1":   {false, false}, // a Teredo server that is the metadata service
		"::ffff:0:10.0.0.1":         {false, true},  // IPv4-translated
		"::ffff:0:169.254.169.254":  {false, false},
		"64:ff9b:1::a00:1":          {false, true}, // a NAT64 of one's own
		"64:ff9b:1::a9fe:a9fe":      {false, false},
		"64:ff9b:1::808:808":        {false, true},
		"2001:2::1":                 {false, true}, // benchmarking
		"2001:db8::1":               {false, true},
		"fd00:ec2::23":              {false, false},
		"fd00:c1::a9fe:a9fe":        {false, false},
		"fd20:ce::254":              {false, false},
		"fd00:42::42":               {false, false},
		"192.0.0.192":               {false, false},
		"192.0.0.1":                 {false, true},
	} {
		a := netip.MustParseAddr(address)
		g.Expect(Egress{}.Check(a) == nil).To(Equal(want.byDefault), "%s by default", address)
		g.Expect(everything.Check(a) == nil).To(Equal(want.whenAllowed), "%s with everything allowed", address)
	}
	g.Expect(everything.Check(netip.MustParseAddr("fd00::1%eth0"))).NotTo(Succeed(), "a zone")
	g.Expect(everything.Check(netip.Addr{})).NotTo(Succeed())

	mapped, err := ParseEgress([]string{"::ffff:10.0.0.0/104"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(mapped.Check(netip.MustParseAddr("10.1.2.3"))).To(Succeed())
	g.Expect(mapped.Check(netip.MustParseAddr("11.1.2.3"))).To(Succeed(), "it is public")
	g.Expect(mapped.Check(netip.MustParseAddr("192.168.0.1"))).NotTo(Succeed())

	_, err = ParseEgress([]string{"10.0.0.1"})
	g.Expect(err).To(MatchError(ContainSubstring("CIDR")))
}

// TestLifetime is THREATS 35.
func TestLifetime(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	type want struct {
		lifetime time.Duration
		has      bool
	}
	for name, tc := range map[string]struct {
		headers map[string]string
		want    want
	}{
		"nothing said":              {nil, want{0, false}},
		"max-age":                   {map[string]string{"Cache-Control": "max-age=15"}, want{15 * time.Second, true}},
		"max-age in capitals":       {map[string]string{"Cache-Control": "Public, Max-Age=15"}, want{15 * time.Second, true}},
		"max-age quoted":            {map[string]string{"Cache-Control": `max-age="15"`}, want{15 * time.Second, true}},
		"max-age less Age":          {map[string]string{"Cache-Control": "max-age=60", "Age": "20"}, want{40 * time.Second, true}},
		"Age beyond max-age":        {map[string]string{"Cache-Control": "max-age=60", "Age": "600"}, want{0, true}},
		"s-maxage is not for us":    {map[string]string{"Cache-Control": "s-maxage=5"}, want{0, false}},
		"max-age twice":             {map[string]string{"Cache-Control": "max-age=5, max-age=60"}, want{5 * time.Second, true}},
		"no-cache":                  {map[string]string{"Cache-Control": "no-cache, max-age=60"}, want{0, true}},
		"no-store":                  {map[string]string{"Cache-Control": "no-store"}, want{0, true}},
		"max-age huge":              {map[string]string{"Cache-Control": "max-age=9223372036854775807"}, want{maxLifetime, true}},
		"max-age beyond a number":   {map[string]string{"Cache-Control": "max-age=99999999999999999999999"}, want{0, true}},
		"max-age negative":          {map[string]string{"Cache-Control": "max-age=-60"}, want{0, true}},
		"max-age nonsense":          {map[string]string{"Cache-Control": "max-age=soon"}, want{0, true}},
		"Age nonsense":              {map[string]string{"Cache-Control": "max-age=60", "Age": "-5"}, want{60 * time.Second, true}},
		"Expires":                   {map[string]string{"Expires": "Mon, 23 Nov 2026 12:01:00 GMT"}, want{time.Minute, true}},
		"Expires by the other date": {map[string]string{"Expires": "Mon, 23 Nov 2026 12:01:00 GMT", "Date": "Mon, 23 Nov 2026 12:00:30 GMT"}, want{30 * time.Second, true}},
		"Expires in the past":       {map[string]string{"Expires": "Mon, 23 Nov 2020 12:01:00 GMT"}, want{0, true}},
		"Expires: 0":                {map[string]string{"Expires": "0"}, want{0, true}},
		"Expires in the year 9999":  {map[string]string{"Expires": "Fri, 31 Dec 9999 23:59:59 GMT"}, want{maxLifetime, true}},
		"max-age beats Expires":     {map[string]string{"Cache-Control": "max-age=5", "Expires": "Mon, 23 Nov 2026 12:01:00 GMT"}, want{5 * time.Second, true}},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			for k, v := range tc.headers {
				h.Set(k, v)
			}
			d, ok := lifetime(h, now)
			NewWithT(t).Expect(want{d, ok}).To(Equal(tc.want))
		})
	}
}

// TestRetryAfter is THREATS 35.
func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"120":                           2 * time.Minute,
		"86400":                         maxRetryAfter,
		"9223372036854775807":           maxRetryAfter,
		"-1":                            0,
		"soon":                          0,
		"Mon, 23 Nov 2026 12:01:00 GMT": time.Minute,
		"Mon, 23 Nov 2020 12:01:00 GMT": 0,
		"Fri, 31 Dec 9999 23:59:59 GMT": maxRetryAfter,
	} {
		NewWithT(t).Expect(retryAfter(http.Header{"Retry-After": {value}}, now)).To(Equal(want), value)
	}
}

func TestRetryAfterIsPassedOn(t *testing.T) {
	g := NewWithT(t)
	for code, want := range map[int]Reason{429: TooManyRequests, 503: TooManyRequests, 500: UnexpectedStatus} {
		target, roots := host(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(code)
		})
		_, err := fetch(t, Request{URL: target, CABundle: roots})
		e := failure(t, err)
		g.Expect(e.Reason).To(Equal(want))
		g.Expect(e.RetryAfter).To(Equal(map[bool]time.Duration{true: 2 * time.Minute}[want == TooManyRequests]))
	}
}

func TestMessagesAreSafeToShow(t *testing.T) {
	g := NewWithT(t)
	e := fail(ConnectionFailed, "bad \x1b[31m%s\xff\n", string(make([]byte, 5000)))
	g.Expect(len(e.Message)).To(BeNumerically("<=", maxMessage))
	g.Expect(e.Message).NotTo(ContainSubstring("\x1b"))
	g.Expect(e.Message).NotTo(ContainSubstring("\n"))
}

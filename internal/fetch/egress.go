// egress.go says which addresses may be fetched from. jwksURI comes from users
// of namespaces: without this they could make the controller, which sits inside
// the cluster, ask whatever it can reach.

package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Egress is the administrator's policy. Public addresses are always allowed.
type Egress struct {
	// Allow opens loopback, private and reserved addresses. Link-local,
	// metadata, multicast and unspecified ones stay refused whatever it holds.
	Allow []netip.Prefix
}

// ParseEgress reads a policy from CIDRs.
func ParseEgress(cidrs []string) (Egress, error) {
	var e Egress
	for _, c := range cidrs {
		p, err := netip.ParsePrefix(c)
		if err != nil {
			return Egress{}, fmt.Errorf("%q is not a CIDR such as 10.96.0.0/12: %w", c, err)
		}
		e.Allow = append(e.Allow, plain(p).Masked())
	}
	return e, nil
}

// plain writes a prefix of IPv4-mapped IPv6 addresses as the IPv4 prefix that it
// is: addresses are compared unmapped.
func plain(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func prefixes(cidrs ...string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(cidrs))
	for _, c := range cidrs {
		out = append(out, netip.MustParsePrefix(c))
	}
	return out
}

var (
	// never can be opened by nothing: link-local, the metadata services of the
	// clouds that are elsewhere (Alibaba, Azure, Oracle twice, Amazon, Google,
	// Scaleway), multicast, broadcast, unspecified.
	never = prefixes("0.0.0.0/8", "169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
		"fd00:c1::a9fe:a9fe/128", "fd00:ec2::/32", "fd20:ce::254/128", "fd00:42::42/128",
		"224.0.0.0/4", "255.255.255.255/32", "::/128", "fe80::/10", "fec0::/10", "ff00::/8")
	// guarded have to be opened: those that the IANA special-purpose registries
	// list as not globally reachable (RFC 6890).
	guarded = prefixes("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::1/128", "64:ff9b:1::/48", "100::/64", "2001:2::/48", "2001:10::/28", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7")
	// suffixed carry an IPv4 address in their last 32 bits: NAT64 (RFC 6052 and
	// RFC 8215, the usual layout), IPv4-compatible (RFC 4291) and IPv4-translated
	// (RFC 2765).
	suffixed = prefixes("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")
	sixto4   = netip.MustParsePrefix("2002::/16") // RFC 3056
	teredo   = netip.MustParsePrefix("2001::/32") // RFC 4380
)

// Check reports whether an address may be connected to, as an error that says
// which rule forbids it.
func (e Egress) Check(addr netip.Addr) error {
	switch {
	case !addr.IsValid():
		return errors.New("the lookup gave no valid address")
	case addr.Zone() != "":
		return errors.New("the address has a zone, so it is link-local, which is never allowed")
	}
	for _, a := range meanings(addr) {
		if within(a, never) {
			return fmt.Errorf("%s is a link-local, metadata, multicast or unspecified address, which is never allowed", a)
		}
		if within(a, guarded) && !within(a, e.Allow) {
			return fmt.Errorf("%s is a loopback, private or reserved address; the administrator can allow it with the manager's flag --egress-allow-cidr", a)
		}
	}
	return nil
}

// meanings are all the addresses that a packet to this one could end at: an IPv6
// address can carry an IPv4 one.
func meanings(addr netip.Addr) []netip.Addr {
	addr = addr.Unmap()
	if addr.Is4() {
		return []netip.Addr{addr}
	}
	b := addr.As16()
	out := []netip.Addr{addr}
	switch {
	case addr.IsUnspecified(), addr.IsLoopback():
	case within(addr, suffixed):
		out = append(out, netip.AddrFrom4([4]byte(b[12:16])))
	case sixto4.Contains(addr):
		out = append(out, netip.AddrFrom4([4]byte(b[2:6])))
	case teredo.Contains(addr):
		out = append(out, netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	}
	return out
}

func within(addr netip.Addr, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Resolver finds the addresses of a host. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// blockedError is an address that the policy refuses.
type blockedError struct {
	host string
	why  error
}

func (e *blockedError) Error() string {
	if _, err := netip.ParseAddr(e.host); err == nil {
		return e.why.Error() // which names the address
	}
	return e.host + ": " + e.why.Error()
}

// lookupError keeps a failed lookup apart from a failed connection.
type lookupError struct{ err error }

func (e *lookupError) Error() string { return e.err.Error() }
func (e *lookupError) Unwrap() error { return e.err }

// judge resolves a host and applies the policy to every address that it has:
// one forbidden address among public ones is an attack, or a mistake that would
// fail now and then.
func (f *Fetcher) judge(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, a)
	} else {
		found, err := f.options.Resolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, &lookupError{err}
		}
		addrs = found
	}
	if len(addrs) == 0 {
		return nil, &lookupError{errors.New("the host has no address")}
	}
	for _, a := range addrs {
		if err := f.options.Egress.Check(a); err != nil {
			return nil, &blockedError{host, err}
		}
	}
	return addrs, nil
}

// diff.go compares two sets by what identifies their keys.

package keyset

import (
	"cmp"
	"slices"
)

// Ref names a key: by its kid, which an issuer chooses, and by its thumbprint,
// which nobody does.
type Ref struct{ KeyID, Thumbprint string }

// Refs are those of the set's keys, in order.
func (s *Set) Refs() []Ref {
	refs := make([]Ref, 0, len(s.keys))
	for _, k := range s.keys {
		refs = append(refs, RefOf(k))
	}
	return refs
}

// RefOf names the key.
func RefOf(k *Key) Ref { return Ref{k.KeyID(), k.Thumbprint()} }

// Has reports whether the set has that key.
func (s *Set) Has(r Ref) bool {
	return slices.ContainsFunc(s.keys, func(k *Key) bool { return RefOf(k) == r })
}

// Change is the difference between two sets.
type Change struct {
	Added, Removed []Ref
	// Replaced are kids that got another key; these are the new ones. RFC 7517
	// section 4.5 means a kid to tell keys apart during a rollover.
	Replaced []Ref
}

// Empty reports whether nothing changed.
func (c Change) Empty() bool { return len(c.Added)+len(c.Removed)+len(c.Replaced) == 0 }

// Diff compares two sets. The order of keys does not matter, and the result is
// sorted by kid, then by thumbprint.
func Diff(old, next []Ref) Change {
	was, is := index(old), index(next)
	var c Change
	for r := range is.all {
		switch {
		case was.all[r]:
		case r.KeyID != "" && was.byKeyID[r.KeyID]:
			c.Replaced = append(c.Replaced, r)
		default:
			c.Added = append(c.Added, r)
		}
	}
	for r := range was.all {
		if !is.all[r] && (r.KeyID == "" || !is.byKeyID[r.KeyID]) {
			c.Removed = append(c.Removed, r)
		}
	}
	for _, refs := range [][]Ref{c.Added, c.Removed, c.Replaced} {
		slices.SortFunc(refs, compareRefs)
	}
	return c
}

func compareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.KeyID, b.KeyID), cmp.Compare(a.Thumbprint, b.Thumbprint))
}

// refIndex finds keys by either of their names.
type refIndex struct {
	all     map[Ref]bool
	byKeyID map[string]bool
}

func index(refs []Ref) refIndex {
	i := refIndex{map[Ref]bool{}, map[string]bool{}}
	for _, r := range refs {
		i.all[r] = true
		i.byKeyID[r.KeyID] = true
	}
	return i
}

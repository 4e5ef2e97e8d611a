// fleet_checks.go is what must hold of a fleet after every step, and at every write to
// a ConfigMap. It looks from outside: at what the issuer has served, and at the history
// of the API server.

package sim

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/fetch"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
)

// fleetChecks is what is known from outside.
type fleetChecks struct {
	verdict

	f *fleet
	// past is the API server as it was after as many changes as have been looked at.
	past contents
	seen int
	// caller and at say who makes the call that is carried out now, and for what.
	caller *operator
	at     work

	// served are the keys that were ever served, by the roots that lead to the server,
	// and roots those that an issuer object has ever had.
	served map[string]map[string]bool
	roots  map[types.UID]map[string]bool
	// approved are thumbprints, and everRefused keys that were revoked at any time.
	approved    map[string]bool
	everRefused map[*signer]bool
	// stood says of each digest that status has ever named as trusted, how many changes
	// there had been each time that it ceased to; still is for one that has not. until is
	// that for what each copy was given.
	stood map[types.UID]map[string][]int
	until map[client.ObjectKey]func() int
	// held is what the authoritative ConfigMap was ever given.
	held map[types.UID][]map[string]string
	// unmatched and bare are how many changes there had been when a namespace was last
	// not selected, and an issuer object had nothing to copy.
	unmatched map[string]int
	bare      int

	// foreign are ConfigMaps of others, and touched those of ours that somebody else has
	// changed.
	foreign map[types.UID]bool
	touched map[client.ObjectKey]bool
	// withdrew is who let an issuer object go, and belated are ConfigMaps that a deposed
	// manager has made: nothing can fence a creation.
	withdrew map[types.UID]*operator
	belated  map[client.ObjectKey]bool
	writes   int

	// mu is for what several goroutines find out at the same time.
	mu        sync.Mutex
	exchanged map[*operator]map[fetch.Identity]*exchanges
	led       map[*operator]map[work]last
	// requests counts those for each document.
	requests map[fetch.Identity]int
}

// still is later than any change.
const still = int(^uint(0) >> 1)

func newFleetChecks(f *fleet) *fleetChecks {
	return &fleetChecks{
		f: f, past: newContents(), served: map[string]map[string]bool{}, roots: map[types.UID]map[string]bool{},
		approved: map[string]bool{}, everRefused: map[*signer]bool{}, stood: map[types.UID]map[string][]int{}, until: map[client.ObjectKey]func() int{},
		held: map[types.UID][]map[string]string{}, unmatched: map[string]int{}, foreign: map[types.UID]bool{},
		touched: map[client.ObjectKey]bool{}, withdrew: map[types.UID]*operator{}, belated: map[client.ObjectKey]bool{},
		exchanged: map[*operator]map[fetch.Identity]*exchanges{}, led: map[*operator]map[work]last{}, requests: map[fetch.Identity]int{},
	}
}

// authoritative is the ConfigMap that is copied.
func (f *fleet) authoritative() client.ObjectKey {
	if o := f.server.issuers[loginKey]; o != nil {
		return client.ObjectKey{Namespace: operatorNamespace, Name: snapshot.AuthoritativeName(o.GetUID())}
	}
	return client.ObjectKey{}
}

// serves: a server answers with keys. It reports that none of them may be trusted.
func (c *fleetChecks) serves(roots string, keys []*signer) (useless bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	useless = true
	for _, s := range keys {
		if c.served[roots] == nil {
			c.served[roots] = map[string]bool{}
		}
		c.served[roots][s.thumbprint] = true
		useless = useless && c.everRefused[s]
	}
	return useless
}

// tampered: somebody changes a ConfigMap that is not their own.
func (c *fleetChecks) tampered(key client.ObjectKey) {
	if cm := c.f.server.maps[key]; cm != nil && !c.foreign[cm.UID] {
		c.touched[key] = true
	}
}

// after looks at all that has changed.
func (c *fleetChecks) after() {
	history := c.f.server.history
	for ; c.seen < len(history) && !c.failed(); c.seen++ {
		e := history[c.seen]
		c.past.take(e.object, e.gone)
		if o, ok := e.object.(api.Issuer); ok && !e.gone {
			c.trusts(o)
		}
		c.marks(c.seen + 1)
	}
	for key := range c.touched {
		cm, o := c.f.server.maps[key], c.f.server.issuers[loginKey]
		right := cm != nil && cm.Immutable == nil && cm.Labels[api.LabelSnapshot] == "true" && o != nil && cm.Labels[api.LabelIssuerUID] == string(o.GetUID()) &&
			o.IssuerStatus().Snapshot != nil && snapshot.Digest(cm.Data) == o.IssuerStatus().Snapshot.Digest
		if right {
			delete(c.touched, key)
		}
	}
}

// trusts checks that what status calls trusted was served to that object, and approved.
func (c *fleetChecks) trusts(o api.Issuer) {
	uid := o.GetUID()
	if c.roots[uid] == nil {
		c.roots[uid] = map[string]bool{}
	}
	c.roots[uid][o.IssuerSpec().CABundle] = true
	for _, k := range o.IssuerStatus().Keys {
		if k.State != api.KeyActive && k.State != api.KeyRetiring {
			continue
		}
		served := false
		for roots := range c.roots[uid] {
			served = served || c.served[roots][k.Thumbprint]
		}
		switch {
		case !served:
			c.fail("wrong accept: %s trusts key %s, which was never served under its roots", o.GetName(), k.KeyID)
		case c.f.setting.Approval && !c.approved[k.Thumbprint]:
			c.fail("wrong accept: %s trusts key %s, which nobody approved", o.GetName(), k.KeyID)
		}
	}
}

// marks takes down what stood after that many changes.
func (c *fleetChecks) marks(changes int) {
	for _, o := range c.past.issuers {
		digest := ""
		if s := o.IssuerStatus().Snapshot; s != nil {
			digest = s.Digest
		}
		all := c.stood[o.GetUID()]
		if all == nil {
			all = map[string][]int{}
			c.stood[o.GetUID()] = all
		}
		for d, times := range all {
			if stands(times) && d != digest {
				times[len(times)-1] = changes
			}
		}
		if digest != "" && !stands(all[digest]) {
			all[digest] = append(all[digest], still)
		}
	}
	for _, name := range append([]string{issuerKey.Namespace}, places...) {
		if !c.selects(c.past, name) {
			c.unmatched[name] = changes
		}
	}
	if login := c.past.issuers[loginKey]; login != nil {
		cm := c.past.maps[client.ObjectKey{Namespace: operatorNamespace, Name: snapshot.AuthoritativeName(login.GetUID())}]
		none := login.IssuerStatus().Snapshot == nil || login.IssuerStatus().Snapshot.Digest == ""
		if cm == nil && none || cm != nil && snapshot.Digest(cm.Data) == "" && (c.f.setting.Removes || none) {
			c.bare = changes
		}
	}
}

// stands reports that the last time has not ended.
func stands(times []int) bool { return len(times) > 0 && times[len(times)-1] == still }

// selects reports that a namespace has to have a copy.
func (c *fleetChecks) selects(in contents, name string) bool {
	login, ns := in.issuers[loginKey], in.namespaces[client.ObjectKey{Name: name}]
	if login == nil || login.GetDeletionTimestamp() != nil || ns == nil || ns.DeletionTimestamp != nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(login.NamespaceSelector())
	return err == nil && selector.Matches(labelSet(ns.Labels))
}

// wrote: a manager has made, changed or removed a ConfigMap.
func (c *fleetChecks) wrote(before, after *corev1.ConfigMap) {
	c.after()
	cm := after
	if before != nil {
		cm = before
	}
	key := client.ObjectKeyFromObject(cm)
	switch {
	case c.foreign[cm.UID]:
		c.fail("foreign: a manager writes ConfigMap %s, which is somebody else's", key)
	case key.Namespace == operatorNamespace:
		if after != nil {
			uid := types.UID(after.Labels[api.LabelIssuerUID])
			c.held[uid] = append(c.held[uid], after.Data)
		}
		return
	}
	c.writes++
	if before == nil && c.caller != c.f.leader {
		c.belated[key] = true
	}
	had, has := digest(before), digest(after)
	if has != "" && has != had {
		c.mayPublish(key, before, after)
	}
	if had != "" && has == "" {
		c.mayEmpty(key, before)
	}
}

func digest(cm *corev1.ConfigMap) string {
	if cm == nil {
		return ""
	}
	return snapshot.Digest(cm.Data)
}

// mayPublish checks that keys which are put into a copy were trusted before, and are no
// older than those that were there.
func (c *fleetChecks) mayPublish(key client.ObjectKey, before, after *corev1.ConfigMap) {
	uid := types.UID(after.Labels[api.LabelIssuerUID])
	times := c.stood[uid][digest(after)]
	if len(times) == 0 {
		c.fail("ahead: the copy %s is given keys that status has never named as trusted", key)
		return
	}
	if !slices.ContainsFunc(c.held[uid], func(data map[string]string) bool { return maps.Equal(data, ours(after.Data)) }) {
		c.fail("ahead: the copy %s is given other bytes than the authoritative ConfigMap has ever had", key)
	}
	fenced := before != nil && !c.touched[key] && before.Labels[api.LabelIssuerUID] == string(uid)
	if fenced && c.until[key] != nil && c.until[key]() > times[len(times)-1] {
		c.fail("back: the copy %s is given older keys than it had", key)
	}
	// The manager may mean an earlier time than the present one, but none that had ended
	// when it began.
	nth, d := max(0, slices.IndexFunc(times, func(t int) bool { return t > c.from() })), digest(after)
	c.until[key] = func() int { return c.stood[uid][d][nth] }
}

// from is how many changes whoever writes now had seen of each kind when it began.
func (c *fleetChecks) from() int {
	if now := c.caller.active[c.at]; now != nil {
		return now.from
	}
	return 0
}

// ours are the data of a ConfigMap that the product writes.
func ours(data map[string]string) map[string]string {
	out := map[string]string{}
	for _, k := range snapshot.Keys() {
		if v, ok := data[k]; ok {
			out[k] = v
		}
	}
	return out
}

// mayEmpty checks that there is a reason to take the keys out of a copy.
func (c *fleetChecks) mayEmpty(key client.ObjectKey, before *corev1.ConfigMap) {
	owner := loginKey
	if key == copyKey {
		owner = issuerKey
	}
	o, uid, from := c.f.server.issuers[owner], before.Labels[api.LabelIssuerUID], c.from()
	switch {
	case c.touched[key], o == nil, o.GetDeletionTimestamp() != nil, uid != string(o.GetUID()):
	case key == copyKey && (o.IssuerStatus().Snapshot == nil || o.IssuerStatus().Snapshot.Digest == "" || c.f.setting.Removes):
	case key != copyKey && (c.unmatched[key.Namespace] >= from || c.bare >= from):
	default:
		c.fail("lost: a manager takes the keys out of the copy %s, or removes it, without a reason", key)
	}
}

// settled checks that each namespace has what it has to have, and no other has.
func (c *fleetChecks) settled() {
	for _, key := range objects {
		o := c.f.server.issuers[key]
		switch {
		case o != nil && o.GetDeletionTimestamp() != nil:
			c.fail("unfinished: %s was deleted, and is still there", key.Name)
		case o != nil:
			c.copied(o)
		}
	}
	c.gone()
	for _, key := range sortedKeys(c.f.server.maps) {
		cm := c.f.server.maps[key]
		_, released := cm.Annotations[api.AnnotationReleased]
		uid, selected := types.UID(cm.Labels[api.LabelIssuerUID]), c.selects(c.f.server.contents, key.Namespace)
		login := c.f.server.issuers[loginKey]
		if login != nil && uid == login.GetUID() && key.Namespace != operatorNamespace && !released && (key.Name != "login-jwks" || !selected) {
			c.fail("unfinished: the copy %s is left, though the namespace is not selected", key)
		}
	}
}

// gone checks that nothing is left of the issuer objects that were deleted; what a deposed
// manager has made since only the manager knows of that withdrew the object.
func (c *fleetChecks) gone() {
	for uid, by := range c.withdrew {
		for _, at := range sortedKeys(c.f.server.maps) {
			cm := c.f.server.maps[at]
			_, released := cm.Annotations[api.AnnotationReleased]
			late := c.belated[at] && by != c.f.leader
			if cm.Labels[api.LabelIssuerUID] == string(uid) && !late && !(c.f.setting.Retains && released) {
				c.fail("unfinished: an issuer object was deleted, and its ConfigMap %s is left", at)
			}
		}
	}
}

// copied checks that those who have to have the keys of an object have them.
func (c *fleetChecks) copied(o api.Issuer) {
	at := client.ObjectKey{Namespace: operatorNamespace, Name: snapshot.AuthoritativeName(o.GetUID())}
	own, s := c.f.server.maps[at], o.IssuerStatus().Snapshot
	if s == nil || s.Digest == "" {
		return
	}
	if digest(own) != s.Digest {
		expired := digest(own) == "" && c.f.setting.Removes
		if !c.touched[at] && !expired { // else only the issuer, or memory, can bring the keys back
			c.fail("unfinished: the authoritative ConfigMap of %s does not hold the set that status names", o.GetName())
		}
		return
	}
	if o.GetNamespace() != "" {
		if cm := c.f.server.maps[copyKey]; cm == nil || !maps.Equal(ours(cm.Data), ours(own.Data)) {
			c.fail("unfinished: the copy %s does not hold what the authoritative ConfigMap does", copyKey)
		}
		return
	}
	desired, refused := int32(0), int32(0)
	for _, at := range sortedKeys(c.f.server.namespaces) {
		name := at.Name
		if name == operatorNamespace || !c.selects(c.f.server.contents, name) {
			continue
		}
		desired++
		cm := c.f.server.maps[loginCopy(name)]
		switch {
		case cm != nil && c.foreign[cm.UID]:
			refused++
		case cm == nil || !maps.Equal(ours(cm.Data), ours(own.Data)):
			c.fail("unfinished: the copy in %s does not hold what the authoritative ConfigMap does", name)
		case cm.Labels[api.LabelIssuerUID] != string(o.GetUID()):
			c.fail("unfinished: the copy in %s does not say whose it is", name)
		}
	}
	if d := o.IssuerStatus().Distribution; d == nil || d.Digest != s.Digest || *d.Desired != desired || *d.Current != desired-refused || len(d.Failed) != int(refused) {
		c.fail("unfinished: status says of the copies %s, which are %d, of which %d are refused", told(d), desired, refused)
	}
}

func told(d *api.DistributionStatus) string {
	if d == nil || d.Desired == nil || d.Current == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s: %d, %d, %d refused", d.Digest, *d.Desired, *d.Current, len(d.Failed))
}

// arrived checks that the objects trust what the issuer publishes, and nothing else. It
// reports whether there is anything that all of them can trust.
func (c *fleetChecks) arrived() (all bool) {
	all = true
	for _, key := range objects {
		o := c.f.server.issuers[key]
		if o == nil {
			continue
		}
		keys := c.f.serverOf(o.IssuerSpec().CABundle).keys
		if !slices.ContainsFunc(keys, func(s *signer) bool { return !refused(o, s) }) {
			all = false
			continue // it publishes nothing that can be trusted: the last good keys go with their time
		}
		for _, s := range append(slices.Clone(signers), another) {
			if want := has(keys, s) && !refused(o, s); listed(o, s) != want {
				c.fail("not arrived: %s trusts key %s: %t, though it should be %t", o.GetName(), s.name, !want, want)
			}
		}
		if s := o.IssuerStatus().Snapshot; s == nil || s.PendingDigest != "" {
			c.fail("unfinished: status of %s still has a pendingDigest", o.GetName())
		}
	}
	return all
}

// idle checks that no copy is written while nothing changes, and that no server is asked
// more often than two objects that do not share would ask it.
func (c *fleetChecks) idle(d time.Duration) {
	writes, requests := c.writes, maps.Clone(c.requests)
	if c.f.calm(d); c.writes != writes {
		c.fail("restless: %d writes to copies while nothing changes", c.writes-writes)
	}
	most := len(objects) * (1 + int(d/leastRefresh))
	for id, n := range c.requests {
		if n-requests[id] > most {
			c.fail("restless: a server is asked %d times within %s", n-requests[id], d)
		}
	}
}

// leastRefresh is the least time between two refreshes: 70 % of cacheTTL.
const leastRefresh = 7 * time.Minute

// fleet_steps.go is what can happen to a fleet.

package sim

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

// picks is how many of the things that are under way can be told apart.
const picks = 6

var fleetLife = script[*fleet]{fleetOrder, fleetOps}

var fleetOrder = []string{
	"advance", "begin", "run", "disturb", "finish", "deliver", "deliver all", "kill", "depose", "zombie", "outlive",
	"publish", "retire", "replace", "mode", "tamper", "occupy", "vacate", "label", "unlabel", "end", "gone", "found", "select",
	"refresh", "ask", "revoke", "pardon", "approve", "delete", "create", "roots",
}

// atPlace is about a namespace, and ofObject about an issuer object.
func atPlace(format string) func(int) string {
	return func(arg int) string { return fmt.Sprintf(format, places[arg]) }
}

func ofObject(format string) func(int) string {
	return func(arg int) string { return fmt.Sprintf(format, objects[arg].Name) }
}

// prey are the ConfigMaps that others tamper with.
func (f *fleet) prey(arg int) client.ObjectKey {
	if arg < len(places) {
		return loginCopy(places[arg])
	}
	return f.authoritative()
}

var fleetOps = map[string]op[*fleet]{
	"advance": {12, len(durations), func(f *fleet, arg int) { f.set(f.Now().Add(durations[arg])) },
		func(arg int) string { return durations[arg].String() + " pass" }},
	"begin": {16, picks, func(f *fleet, arg int) { f.leader.begin(arg) },
		func(arg int) string { return fmt.Sprintf("the manager begins with what is due (%d)", arg) }},
	"run": {40, picks, func(f *fleet, arg int) { f.leader.goOn(arg, answered) },
		func(arg int) string { return fmt.Sprintf("the manager goes on with one of its calls (%d)", arg) }},
	"disturb": {8, int(fates) * picks, func(f *fleet, arg int) { f.leader.goOn(arg/int(fates), fate(arg%int(fates))); f.replaceDead() },
		func(arg int) string {
			return fmt.Sprintf("one of the manager's calls (%d) %s", arg/int(fates), fateNames[arg%int(fates)])
		}},
	"finish": {10, 1, func(f *fleet, _ int) { f.leader.finish(true) }, says("the manager does all that is due")},
	"deliver": {20, len(watches), func(f *fleet, arg int) { f.leader.deliver(arg) },
		func(arg int) string {
			return "the manager's watch of " + watches[arg].name + " tells of the next change"
		}},
	"deliver all": {8, 1, func(f *fleet, _ int) { f.leader.deliverAll() }, says("the manager's watches tell all")},
	"kill": {2, 4, func(f *fleet, arg int) { f.leader.kill(); f.leader = newOperator(f, arg) },
		func(arg int) string {
			return fmt.Sprintf("the manager is killed; the next one has a view %d changes old", arg)
		}},
	"depose": {3, 4, func(f *fleet, arg int) { f.depose(arg) },
		func(arg int) string {
			return fmt.Sprintf("another manager becomes the leader, with a view %d changes old; the old one does not know yet", arg)
		}},
	"zombie": {8, int(fates) * picks, func(f *fleet, arg int) { f.zombie(arg/int(fates), fate(arg%int(fates))) },
		func(arg int) string {
			return fmt.Sprintf("the deposed manager goes on; one of its calls (%d) %s", arg/int(fates), fateNames[arg%int(fates)])
		}},
	"outlive": {3, 1, func(f *fleet, _ int) { f.outlive() }, says("the deposed manager finishes what it is at")},
	// Never drawn: for schedules that are written down.
	"move":    {0, 1, func(f *fleet, _ int) { f.move() }, says("the manager goes on with its first call, or sees all, and begins with the first thing that is due")},
	"publish": {4, published, func(f *fleet, arg int) { f.issuer.publish(signers[arg]) }, key("the issuer publishes key %s too")},
	"retire": {3, published, func(f *fleet, arg int) {
		if has(f.issuer.keys, signers[arg]) {
			f.issuer.set(without(f.issuer.keys, signers[arg]))
		}
	}, key("the issuer no longer publishes key %s")},
	"replace": {1, 1, func(f *fleet, _ int) { f.issuer.set([]*signer{signers[3], signers[2]}) },
		says("the issuer replaces all of its keys, with another key under the kid a")},
	"mode": {4, int(modes), func(f *fleet, arg int) { f.issuer.mode = mode(arg) }, func(arg int) string { return "the issuer " + modeNames[arg] }},
	"tamper": {5, len(tamperings) * (len(places) + 1), func(f *fleet, arg int) {
		at := f.prey(arg % (len(places) + 1))
		f.checks.tampered(at)
		tamperings[arg/(len(places)+1)].to(f.server, at)
	}, func(arg int) string {
		whose := "the authoritative ConfigMap"
		if n := arg % (len(places) + 1); n < len(places) {
			whose = "the copy in " + places[n]
		}
		return "somebody " + tamperings[arg/(len(places)+1)].name + " " + whose
	}},
	"occupy": {2, len(places), func(f *fleet, arg int) { f.occupy(loginCopy(places[arg])) },
		atPlace("a tenant makes a ConfigMap of the copy's name in %s, if there is none")},
	"vacate": {2, len(places), func(f *fleet, arg int) {
		if cm := f.server.maps[loginCopy(places[arg])]; cm != nil && f.checks.foreign[cm.UID] {
			f.server.removeMap(loginCopy(places[arg]))
		}
	}, atPlace("the tenant of %s removes the ConfigMap that it has made")},
	"label": {3, len(places), func(f *fleet, arg int) {
		f.changePlace(places[arg], func(ns *corev1.Namespace) { ns.Labels = chosen })
	}, atPlace("namespace %s gets the label")},
	"unlabel": {3, len(places), func(f *fleet, arg int) {
		f.changePlace(places[arg], func(ns *corev1.Namespace) { ns.Labels = nil })
	}, atPlace("namespace %s loses the label")},
	"end": {1, len(places), func(f *fleet, arg int) {
		now := metav1.NewTime(f.Now())
		f.changePlace(places[arg], func(ns *corev1.Namespace) { ns.DeletionTimestamp = &now })
	}, atPlace("namespace %s is deleted")},
	"gone":  {2, len(places), func(f *fleet, arg int) { f.endPlace(places[arg]) }, atPlace("namespace %s is gone, if it was deleted")},
	"found": {2, len(places), func(f *fleet, arg int) { f.makePlace(places[arg], true) }, atPlace("namespace %s is made anew, with the label, if it is gone")},
	"select": {2, 2, func(f *fleet, arg int) {
		f.edit(loginKey, func(o api.Issuer) {
			if o, ok := o.(*api.ClusterTrustedIssuer); ok {
				o.Spec.NamespaceSelector = []*metav1.LabelSelector{{}, {MatchLabels: chosen}}[arg]
			}
		})
	}, func(arg int) string {
		return []string{"the selector matches all namespaces", "the selector matches the label"}[arg]
	}},
	"refresh": {2, len(objects), func(f *fleet, arg int) {
		f.edit(objects[arg], func(o api.Issuer) { annotate(o, api.AnnotationRefresh, f.count()) })
	}, ofObject("a user asks for a refresh of %s")},
	"ask": {3, len(objects), func(f *fleet, arg int) {
		at := metav1.NewMicroTime(f.Now())
		f.edit(objects[arg], func(o api.Issuer) { o.IssuerStatus().RefreshRequestedAt = &at })
	}, ofObject("a replica asks for a refresh of %s: a token names an unknown key")},
	"revoke": {1, published, func(f *fleet, arg int) {
		f.checks.everRefused[signers[arg]] = true
		f.edit(loginKey, func(o api.Issuer) { o.IssuerSpec().RevokedKeys = []string{signers[arg].thumbprint} })
	}, key("a user revokes key %s in login")},
	"pardon": {2, 1, func(f *fleet, _ int) {
		f.edit(loginKey, func(o api.Issuer) { o.IssuerSpec().RevokedKeys = nil })
	}, says("a user revokes nothing any more")},
	"approve": {3, 1, func(f *fleet, _ int) { f.approve() }, says("an administrator approves what is quarantined")},
	"delete": {1, len(objects), func(f *fleet, arg int) {
		now := metav1.NewTime(f.Now())
		f.edit(objects[arg], func(o api.Issuer) {
			if o.GetDeletionTimestamp() == nil {
				o.SetDeletionTimestamp(&now)
			}
		})
	}, ofObject("a user deletes %s")},
	"create": {3, len(objects), func(f *fleet, arg int) { f.makeObject(objects[arg]) }, ofObject("a user makes %s anew, if it is gone")},
	"roots": {1, 2, func(f *fleet, arg int) {
		f.edit(issuerKey, func(o api.Issuer) { o.IssuerSpec().CABundle = []string{"", otherRoots}[arg] })
	}, func(arg int) string {
		return "a user has auth trust " + []string{"the system's roots", "other roots, and so another server"}[arg]
	}},
}

// move lets the leader make one step forward; it reports whether there was one.
func (f *fleet) move() bool {
	if f.leader.goOn(0, answered) {
		return true
	}
	f.leader.deliverAll()
	return f.leader.begin(0)
}

// occupy makes a ConfigMap that is somebody else's.
func (f *fleet) occupy(at client.ObjectKey) {
	if f.server.maps[at] != nil || f.server.admits(at.Namespace) != nil {
		return
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: at.Namespace, Name: at.Name}, Data: map[string]string{"a tenant's": "own"}}
	f.server.create(cm)
	f.checks.foreign[cm.UID] = true
}

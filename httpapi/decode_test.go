package httpapi_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// Whatever is sent as a check-in is taken or is a problem of the caller's. What is refused
// leaves nothing; what is taken is as the contract has it and can be sent again.
func FuzzCheckIn(f *testing.F) {
	doc, err := loadContract()
	if err != nil {
		f.Fatal(err)
	}
	schema := doc.Components.Schemas["CheckIn"].Value
	good, err := json.Marshal(checkIn("b1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"cluster":null}`))
	f.Add([]byte(`{"name":"b1","name":"b1"}`))
	f.Add(bytes.Replace(good, []byte(`12.5`), []byte(`1e999`), 1))
	f.Add(bytes.Replace(good, []byte(`"kvm"`), []byte(`"kvm","kvm"`), 1))
	f.Add(bytes.Replace(good, []byte(`"b1"`), []byte(`"b\u0031"`), 1))
	f.Fuzz(func(t *testing.T, body []byte) {
		cluster, err := coordinator.New(coordinator.Config{ID: clusterID, Builders: []string{"b1", "b2", "b3"}})
		if err != nil {
			t.Fatal(err)
		}
		server, err := httpapi.New(httpapi.Config{Cluster: cluster, WhoIs: whoIs, Hosts: []string{"nix-coordinator"}})
		if err != nil {
			t.Fatal(err)
		}
		send := func(body []byte) *httptest.ResponseRecorder {
			req := httptest.NewRequest(http.MethodPost, base+"/check-ins", bytes.NewReader(body))
			req.RemoteAddr = builder1.Addr.String() + ":1"
			req.Header.Set("Content-Type", "application/json")
			rec := httptest.NewRecorder()
			server.ServeHTTP(rec, req)
			return rec
		}
		rec := send(body)
		if rec.Code >= 400 {
			var p apiclient.Problem
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || rec.Code >= 500 || problem.FromURI(p.Type) == "" {
				t.Fatalf("status %d, %v\n%s", rec.Code, err, rec.Body)
			}
			if b := cluster.View().Builders[0]; b.ID != uuid.Nil {
				t.Fatalf("a check-in that was refused left %+v", b)
			}
			return
		}
		if rec.Code != http.StatusCreated {
			t.Fatalf("status %d", rec.Code)
		}
		var value any
		if err := json.Unmarshal(body, &value); err != nil {
			t.Fatalf("what was taken is no JSON: %v", err)
		}
		if err := schema.VisitJSON(value); err != nil {
			t.Fatalf("what was taken is not as the contract has it: %v", err)
		}
		if again := send(body); again.Code != http.StatusOK {
			t.Fatalf("sent again: status %d\n%s", again.Code, again.Body)
		}
	})
}

// A web page with Glean.js as a page of others has it; a test bundles it with the Glean.js of the lock file.
import PingType from "@mozilla/glean/private/ping";
import CounterMetricType from "@mozilla/glean/private/metrics/counter";
import StringMetricType from "@mozilla/glean/private/metrics/string";
import TimingDistributionMetricType from "@mozilla/glean/private/metrics/timing_distribution";
import Glean from "@mozilla/glean/web";

const common = {category: "page", sendInPings: ["visit"], lifetime: "ping", disabled: false};
const clicks = new CounterMetricType({...common, name: "clicks"});
const title = new StringMetricType({...common, name: "title"});
const load = new TimingDistributionMetricType({...common, name: "load"}, "millisecond");
const visit = new PingType({name: "visit", includeClientId: true, sendIfEmpty: false, reasonCodes: []});

/**
 * Submit one ping; with `tag`, which makes Glean.js use fetch instead of a beacon.
 * @param {string} endpoint @param {string} text @param {string | undefined} tag
 */
globalThis.submitVisit = (endpoint, text, tag) => {
  Glean.initialize("org-example-page", true, {
    serverEndpoint: endpoint,
    appDisplayVersion: "1.2",
    channel: "nightly",
  });
  if (tag) Glean.setDebugViewTag(tag);
  clicks.add(3);
  title.set(text);
  load.stopAndAccumulate(load.start());
  visit.submit();
};
